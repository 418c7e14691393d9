package httpapi

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fnkit/fnkit/engine"
)

func (a *API) listExecutions(c *call) error {
	function := c.in.id("functionId")
	q := c.in.query(engine.ExecutionAttrs(), c.format)
	if c.in.err != nil {
		return c.in.err
	}
	q.Filters = failedAlso(q.Filters)
	list, err := c.p.ListExecutions(c.r.Context(), c.by, function, q)
	if err != nil {
		return err
	}
	return c.list("executions", list.Total, each(list.Items, func(e engine.Execution) object { return c.format.execution(executionModel(e)) }))
}

// failedAlso lets filters of the status "failed" find what is shown as that.
func failedAlso(filters []engine.Filter) []engine.Filter {
	out := slices.Clone(filters)
	for i, f := range out {
		out[i].Nested = failedAlso(f.Nested)
		if f.Attr != "status" || !slices.Contains(f.Values, any("failed")) {
			continue
		}
		switch f.Op {
		case "equal":
			for _, status := range alsoFailed {
				out[i].Values = append(slices.Clip(out[i].Values), status)
			}
		case "notEqual":
			out[i] = engine.Filter{Op: "and", Nested: []engine.Filter{f}}
			for _, status := range alsoFailed {
				out[i].Nested = append(out[i].Nested, engine.Filter{Op: f.Op, Attr: f.Attr, Values: []any{status}})
			}
		}
	}
	return out
}

func (a *API) getExecution(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("executionId")
	if c.in.err != nil {
		return c.in.err
	}
	e, err := c.p.GetExecution(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.format.execution(executionModel(e)))
}

func (a *API) deleteExecution(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("executionId")
	if c.in.err != nil {
		return c.in.err
	}
	if err := c.p.DeleteExecution(c.r.Context(), c.by, function, id); err != nil {
		return err
	}
	return c.noContent()
}

func (a *API) cancelExecution(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("executionId")
	if c.in.err != nil {
		return c.in.err
	}
	e, err := c.p.CancelExecution(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.format.execution(executionModel(e)))
}

func (a *API) replayExecution(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("executionId")
	if c.in.err != nil {
		return c.in.err
	}
	e, err := c.p.ReplayExecution(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusAccepted, c.format.execution(executionModel(e)))
}

func (a *API) createExecution(c *call) error {
	function, p, err := a.executeParams(c)
	if err != nil {
		return err
	}
	res, err := c.p.Execute(c.r.Context(), c.by, function, p)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if p.Async {
		status = http.StatusAccepted
	}
	if res.Repeated {
		c.w.Header().Set("Idempotency-Replayed", "true")
	}
	return c.execution(status, res, p.Async)
}

// executeParams reads what to execute.
func (a *API) executeParams(c *call) (function string, p engine.ExecuteParams, err error) {
	c.format.executionParams(c.in.values)
	function = c.in.id("functionId")
	p = engine.ExecuteParams{
		Body:        c.in.bytes("body", a.cfg.Limits.RequestBody),
		Async:       c.in.looseBoolean("async"),
		Path:        c.in.text("path", between(1, engine.MaxPath)),
		Method:      c.in.text("method", engine.CheckMethod),
		Headers:     c.in.headers("headers"),
		ScheduledAt: c.in.minute("scheduledAt", a.cfg.Clock.Now()),
		ClientIP:    a.clientIP(c.r),

		IdempotencyKey: c.r.Header.Get("Idempotency-Key"),
	}
	if ext, given := c.in.extension(); given {
		p.Lane = ext.text("lane", between(0, engine.MaxLane))
		if ext.values["priority"] != nil {
			p.Priority = new(ext.integer("priority", 0, func(n int) error { return engine.CheckRange(n, -engine.MaxPriority, engine.MaxPriority) }))
		}
		c.in.err = ext.err
	}
	if c.in.err != nil {
		return "", p, c.in.err
	}
	if !p.ScheduledAt.IsZero() && !p.Async {
		return "", p, engine.Errorf(engine.TypeBadRequest, "Scheduled executions must run asynchronously. Set scheduledAt to a future date and async to true.")
	}
	if err := engine.CheckHeaders(p.Headers); err != nil {
		return "", p, engine.Errorf(engine.TypeArgument, "%s", err)
	}
	return function, p, nil
}

// execution answers with an execution in the form the client accepts. Only the
// answer to a synchronous one carries the function's whole response.
func (c *call) execution(status int, res engine.ExecuteResult, async bool) error {
	o := executionModel(res.Execution)
	if !async {
		o.set("responseBody", string(res.ResponseBody))
		o.set("responseHeaders", each(res.ResponseHeaders, headerModel))
	}
	o = c.format.execution(o)
	if acceptsMultipart(c.r) {
		return writeMultipart(c.w, status, o)
	}
	if !utf8.Valid(res.ResponseBody) {
		return wireError(TypeUnreadableAnswer)
	}
	return c.json(status, o)
}

// acceptsMultipart reports whether the first form the client accepts, of those
// there are, is multipart.
func acceptsMultipart(r *http.Request) bool {
	for item := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		media, _, _ := mime.ParseMediaType(item)
		switch media {
		case "application/json", "application/*":
			return false
		case "multipart/form-data", "multipart/*":
			return true
		}
	}
	return false
}
