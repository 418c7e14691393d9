package store

// Type is the type of an attribute's values.
type Type string

const (
	Text    Type = "text"    // string; compared as bytes
	Fold    Type = "fold"    // string; compared without regard to ASCII case
	Integer Type = "integer" // int64
	Number  Type = "number"  // float64
	Boolean Type = "boolean" // bool
	Date    Type = "date"    // time.Time, to the millisecond
)

// Attrs lists the attributes by which a list can be filtered and ordered, by
// their public names. This is the only place that decides it.
type Attrs map[string]Attr

// Attr describes one attribute.
type Attr struct {
	Type Type
	// OrderOnly attributes cannot be filtered by.
	OrderOnly bool
	// Null attributes may be null, which text never is (it is empty).
	Null bool
}

func common(more Attrs) Attrs {
	a := Attrs{
		"$id":         {Type: Text},
		"$createdAt":  {Type: Date},
		"$updatedAt":  {Type: Date},
		"$internalId": {Type: Integer, OrderOnly: true},
	}
	for k, v := range more {
		a[k] = v
	}
	return a
}

// FunctionAttrs are the attributes of a list of functions.
func FunctionAttrs() Attrs {
	return common(Attrs{
		"name":             {Type: Fold},
		"enabled":          {Type: Boolean},
		"runtime":          {Type: Text},
		"deployment":       {Type: Text},
		"schedule":         {Type: Text},
		"scheduleNext":     {Type: Date, Null: true},
		"schedulePrevious": {Type: Date, Null: true},
		"timeout":          {Type: Integer},
		"entrypoint":       {Type: Text},
		"commands":         {Type: Text},
		"installationId":   {Type: Text},
	})
}

// DeploymentAttrs are the attributes of a list of deployments.
func DeploymentAttrs() Attrs {
	return common(Attrs{
		"size":       {Type: Integer},
		"buildId":    {Type: Text},
		"activate":   {Type: Boolean},
		"entrypoint": {Type: Text},
		"commands":   {Type: Text},
		"type":       {Type: Text},
		"status":     {Type: Text},
	})
}

// ExecutionAttrs are the attributes of a list of executions.
func ExecutionAttrs() Attrs {
	return common(Attrs{
		"trigger":            {Type: Text},
		"status":             {Type: Text},
		"responseStatusCode": {Type: Integer},
		"duration":           {Type: Number}, // seconds
		"requestMethod":      {Type: Text},
		"requestPath":        {Type: Text},
		"deploymentId":       {Type: Text},
		"scheduledAt":        {Type: Date, Null: true},
	})
}
