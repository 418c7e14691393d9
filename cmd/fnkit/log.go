package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
)

// maxLogged is how many bytes of a path or method are logged.
const maxLogged = 200

// logLine says how a request was answered. What comes from the client cannot
// break the line, nor be long, and the query is left out: it may hold secrets.
func logLine(at time.Time, r *http.Request, o httpapi.Outcome) string {
	project := o.Project
	if engine.CheckProject(project) != nil {
		project = "-"
	}
	var failure string
	if e := new(engine.Error); errors.As(o.Err, &e) {
		failure = "  " + e.Type
	}
	return fmt.Sprintf("%s  %d  %-7s %s  %s  project %s%s\n",
		at.Format(time.TimeOnly), o.Status, short(r.Method), short(r.URL.EscapedPath()), o.Duration.Round(10*time.Microsecond), project, failure)
}

// short cuts an ASCII text that is too long for the log.
func short(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return s[:maxLogged] + "..."
}
