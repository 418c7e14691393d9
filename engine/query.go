package engine

import "github.com/fnkit/fnkit/store"

// The query language of lists, as the store defines it.
type (
	Query  = store.Query
	Filter = store.Filter
	Order  = store.Order
	// Op is an operator: its value is its name on the wire.
	Op = store.Op
	// Attrs are the attributes by which a list can be filtered and ordered.
	Attrs = store.Attrs
	// AttrType is the type of an attribute's values.
	AttrType = store.Type
)

const (
	AttrText    = store.Text
	AttrFold    = store.Fold
	AttrInteger = store.Integer
	AttrNumber  = store.Number
	AttrBoolean = store.Boolean
	AttrDate    = store.Date
)

// MaxPage is how many records a page has at most.
const MaxPage = store.MaxLimit

// FunctionAttrs are the attributes of ListFunctions.
func FunctionAttrs() Attrs { return store.FunctionAttrs() }

// DeploymentAttrs are the attributes of ListDeployments.
func DeploymentAttrs() Attrs { return store.DeploymentAttrs() }

// ExecutionAttrs are the attributes of ListExecutions.
func ExecutionAttrs() Attrs { return store.ExecutionAttrs() }
