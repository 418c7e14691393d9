package cron

// Expr is a parsed expression.
type Expr struct{}

// Parse is being written.
func Parse(s string) (*Expr, error) { return &Expr{}, nil }
