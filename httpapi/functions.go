package httpapi

import (
	"net/http"

	"github.com/fnkit/fnkit/engine"
)

func (a *API) listFunctions(c *call) error {
	q := c.in.query(engine.FunctionAttrs(), c.format)
	if c.in.err != nil {
		return c.in.err
	}
	list, err := c.p.ListFunctions(c.r.Context(), c.by, q)
	if err != nil {
		return err
	}
	ids := make([]string, len(list.Items))
	for i, f := range list.Items {
		ids[i] = f.ID
	}
	vars, err := c.p.VariablesOf(c.r.Context(), c.by, ids...)
	if err != nil {
		return err
	}
	return c.list("functions", list.Total, each(list.Items, func(f engine.Function) object {
		return c.format.function(f, functionModel(f, vars[f.ID]), a.cfg.Clock.Now())
	}))
}

// function answers with one function and its variables.
func (c *call) function(status int, f engine.Function, err error) error {
	if err != nil {
		return err
	}
	vars, err := c.p.VariablesOf(c.r.Context(), c.by, f.ID)
	if err != nil {
		return err
	}
	return c.json(status, c.format.function(f, functionModel(f, vars[f.ID]), c.api.cfg.Clock.Now()))
}

func (a *API) createFunction(c *call) error {
	if a.created != nil {
		if err := a.created.take(c.w.Header(), c.caller.Project, a.cfg.Clock.Now()); err != nil {
			return err
		}
	}
	c.format.functionParams(c.in.values)
	id := c.in.mustText("functionId", engine.CheckNewID)
	p := a.functionParams(c.in, true)
	p.ID = id
	if c.in.err != nil {
		return c.in.err
	}
	f, err := c.p.CreateFunction(c.r.Context(), c.by, p)
	return c.function(http.StatusCreated, f, err)
}

func (a *API) updateFunction(c *call) error {
	c.format.functionParams(c.in.values)
	id := c.in.id("functionId")
	p := a.functionParams(c.in, false)
	if c.in.err != nil {
		return c.in.err
	}
	f, err := c.p.UpdateFunction(c.r.Context(), c.by, id, p)
	return c.function(http.StatusOK, f, err)
}

// functionParams reads the settings of a function, but for its id.
func (a *API) functionParams(in *input, create bool) engine.FunctionParams {
	runtime, provider := in.text, between(0, engine.MaxProvider)
	if create {
		runtime = in.mustText
	}
	p := engine.FunctionParams{
		Name:       in.mustText("name", between(1, engine.MaxName)),
		Runtime:    runtime("runtime", func(s string) error { return engine.CheckEnum(s, a.eng.KnownRuntimes()) }),
		Execute:    in.roles("execute"),
		Events:     in.items("events", a.eng.CheckEvents),
		Schedule:   in.text("schedule", engine.CheckSchedule),
		Timeout:    in.integer("timeout", engine.DefaultTimeout, func(n int) error { return engine.CheckRange(n, 1, a.cfg.Limits.Timeout) }),
		Disabled:   !in.boolean("enabled", true),
		NoLogging:  !in.boolean("logging", true),
		Entrypoint: in.text("entrypoint", between(0, engine.MaxEntrypoint)),
		Commands:   in.text("commands", between(0, engine.MaxCommands)),
		Scopes:     in.items("scopes", engine.CheckScopes),

		InstallationID:        in.text("installationId", provider),
		ProviderRepositoryID:  in.text("providerRepositoryId", provider),
		ProviderBranch:        in.text("providerBranch", provider),
		ProviderSilentMode:    in.boolean("providerSilentMode", false),
		ProviderRootDirectory: in.text("providerRootDirectory", provider),
	}
	if create {
		p.Template = engine.Template{
			Repository:    in.text("templateRepository", provider),
			Owner:         in.text("templateOwner", provider),
			RootDirectory: in.text("templateRootDirectory", provider),
			Version:       in.text("templateVersion", provider),
		}
	}
	p.Specification = in.text("specification", a.eng.CheckSpecification)
	p.Policy = policyParams(in)
	return p
}

// policyParams reads the settings that the reference does not have. What is
// absent is kept; a null goes back to the default.
func policyParams(in *input) (p engine.PolicyParams) {
	ext, given := in.extension()
	if !given {
		return p
	}
	changes := func(name string) bool {
		_, given := ext.values[name]
		return given || ext.values == nil
	}
	if changes("timeZone") {
		p.TimeZone = new(ext.text("timeZone", engine.CheckTimeZone))
	}
	if changes("catchUp") {
		p.CatchUp = new(engine.CatchUp(ext.text("catchUp", func(s string) error { return engine.CheckCatchUp(engine.CatchUp(s)) })))
	}
	if changes("retry") {
		p.Retry = new(ext.retry(ext.values["retry"]))
	}
	if changes("priority") {
		p.Priority = new(ext.integer("priority", 0, func(n int) error { return engine.CheckRange(n, -engine.MaxPriority, engine.MaxPriority) }))
	}
	concurrency := func(n int) error { return engine.CheckRange(n, 0, engine.MaxConcurrency) }
	if changes("concurrency") {
		p.Concurrency = new(ext.integer("concurrency", 0, concurrency))
	}
	if changes("laneConcurrency") {
		p.LaneConcurrency = new(ext.integer("laneConcurrency", 0, concurrency))
	}
	if changes("rate") {
		p.Rate = new(ext.rate("rate"))
	}
	if changes("laneRate") {
		p.LaneRate = new(ext.rate("laneRate"))
	}
	if changes("network") {
		p.Network = new(ext.text("network", engine.CheckNetwork))
	}
	in.err = ext.err
	return p
}

// rate reads a rate; null is none.
func (in *input) rate(name string) (r engine.Rate) {
	v := in.values[name]
	obj := in.object(name, v)
	if in.err = obj.err; v == nil || in.err != nil {
		return r
	}
	r.Limit = obj.integer("limit", 0, func(n int) error { return engine.CheckRange(n, 1, engine.MaxRate) })
	r.Period = obj.integer("period", 0, func(n int) error { return engine.CheckRange(n, 1, engine.MaxPeriod) })
	if in.err = obj.err; in.err == nil {
		in.fail(name, engine.CheckRate(r))
	}
	return r
}

// retry reads a retry policy; what is absent in it is its default.
func (in *input) retry(v any) (r engine.Retry) {
	obj := in.object("retry", v)
	attempts := func(n int) error { return engine.CheckRange(n, 0, engine.MaxAttempts) }
	seconds := func(n int) error { return engine.CheckRange(n, 0, engine.MaxBackoff) }
	r.Attempts = obj.integer("attempts", 0, attempts)
	r.Backoff = obj.integer("backoff", 0, seconds)
	r.MaxBackoff = obj.integer("maxBackoff", 0, seconds)
	for _, f := range obj.items("on", checkFailures) {
		r.On = append(r.On, engine.Failure(f))
	}
	in.err = obj.err
	return r
}

func checkFailures(names []string) error {
	on := make([]engine.Failure, len(names))
	for i, n := range names {
		on[i] = engine.Failure(n)
	}
	return engine.CheckFailures(on)
}

func (a *API) getFunction(c *call) error {
	id := c.in.id("functionId")
	if c.in.err != nil {
		return c.in.err
	}
	f, err := c.p.GetFunction(c.r.Context(), c.by, id)
	return c.function(http.StatusOK, f, err)
}

func (a *API) deleteFunction(c *call) error {
	id := c.in.id("functionId")
	if c.in.err != nil {
		return c.in.err
	}
	if err := c.p.DeleteFunction(c.r.Context(), c.by, id); err != nil {
		return err
	}
	return c.noContent()
}

func (a *API) listRuntimes(c *call) error {
	list, err := c.p.Runtimes(c.r.Context(), c.by)
	if err != nil {
		return err
	}
	return c.list("runtimes", len(list), each(list, func(r engine.Runtime) object { return c.format.runtime(runtimeModel(r)) }))
}

func (a *API) listSpecifications(c *call) error {
	list, err := c.p.Specifications(c.r.Context(), c.by)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, object{{"specifications", each(list, specificationModel)}, {"total", len(list)}})
}
