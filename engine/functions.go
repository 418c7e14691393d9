package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// CreateFunction creates a function. It has no code yet: see Deploy.
// Errors: general_argument_invalid, function_runtime_unsupported,
// document_already_exists, installation_not_found, function_template_not_found.
func (p *Project) CreateFunction(ctx context.Context, by Actor, f FunctionParams) (Function, error) {
	limits, err := p.enter(ctx, by, ScopeFunctionsWrite)
	if err != nil {
		return Function{}, err
	}
	f.ID = cmp.Or(f.ID, UniqueID)
	if err := p.e.checkFunction(f, true); err != nil {
		return Function{}, err
	}
	if err := p.e.runtimeAllowed(ctx, f.Runtime); err != nil {
		return Function{}, err
	}
	if err := p.e.networkAllowed(ctx, f.Policy.Network); err != nil {
		return Function{}, err
	}
	if err := f.checkSources(); err != nil {
		return Function{}, err
	}
	now := p.e.now()
	if f.ID == UniqueID {
		f.ID = ids.New(now)
	}
	fn := Function{Project: p.id, ID: f.ID, CreatedAt: now, UpdatedAt: now, Live: true, Revision: firstRevision()}
	p.e.apply(&fn, f, now)
	err = p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if err := p.checkQuota(ctx, tx, limits.Functions); err != nil {
			return err
		}
		fn.Seq, err = tx.CreateFunction(ctx, fn)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return Function{}, Errorf(TypeFunctionExists, "")
	}
	if err != nil {
		return Function{}, fail(err, "")
	}
	p.emit(ctx, by, "functions."+fn.ID+".create", fn)
	return fn, nil
}

// GetFunction returns a function. Error: function_not_found.
func (p *Project) GetFunction(ctx context.Context, by Actor, id string) (Function, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return Function{}, err
	}
	fn, err := p.e.store.GetFunction(ctx, p.id, id)
	return fn, fail(err, TypeFunction)
}

// ListFunctions returns the functions that match q.
func (p *Project) ListFunctions(ctx context.Context, by Actor, q Query) (List[Function], error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return List[Function]{}, err
	}
	items, err := p.e.store.ListFunctions(ctx, p.id, q)
	if err != nil {
		return List[Function]{}, failList(err, "Function", q)
	}
	total, err := p.e.store.CountFunctions(ctx, p.id, q, MaxTotal)
	return List[Function]{total, items}, fail(err, "")
}

// UpdateFunction replaces the settings of a function: what f leaves out goes
// back to its default, but for Runtime and Entrypoint, which stay. The next
// call sees the new settings. Errors as CreateFunction, and function_not_found.
func (p *Project) UpdateFunction(ctx context.Context, by Actor, id string, f FunctionParams) (Function, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Function{}, err
	}
	if err := p.e.checkFunction(f, false); err != nil {
		return Function{}, err
	}
	if err := p.e.networkAllowed(ctx, f.Policy.Network); err != nil {
		return Function{}, err
	}
	now := p.e.now()
	fn, err := p.e.store.UpdateFunction(ctx, p.id, id, func(fn *Function) error {
		if err := f.checkSources(); err != nil {
			return err
		}
		old := *fn
		p.e.apply(fn, f, now)
		stale := fn.Name != old.Name || fn.Entrypoint != old.Entrypoint || fn.Commands != old.Commands ||
			fn.ProviderRootDirectory != old.ProviderRootDirectory || fn.Runtime != old.Runtime
		fn.Live = old.Live && !stale
		if !sameSettings(old, *fn) {
			fn.UpdatedAt = now
		}
		return nil
	})
	if err != nil {
		return Function{}, fail(err, TypeFunction)
	}
	p.e.forget(p.id, id)
	p.emit(ctx, by, "functions."+fn.ID+".update", fn)
	return fn, nil
}

// DeleteFunction removes a function with everything that belongs to it, and
// stops its instances and builds. Error: function_not_found.
func (p *Project) DeleteFunction(ctx context.Context, by Actor, id string) error {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return err
	}
	blobs, err := p.e.store.DeleteFunction(ctx, p.id, id)
	if err != nil {
		return fail(err, TypeFunction)
	}
	p.e.forget(p.id, id)
	p.e.builds.cancelIf(func(d Deployment) bool { return d.Project == p.id && d.FunctionID == id })
	p.e.runs.cancelIf(func(x Execution) bool { return x.Project == p.id && x.FunctionID == id })
	p.e.deleteBlobs(ctx, blobs)
	if err := p.e.deleteBlobsUnder(ctx, uploadsOf(p.id, id)); err != nil {
		p.e.cfg.Logger.Warn("delete parts of uploads", "function", id, "error", err)
	}
	p.e.artefacts.forget(func(k artefactKey) bool { return k.project == p.id && k.function == id })
	p.e.packages.forget(func(f packagesKey) bool { return f.functionKey == functionKey{p.id, id} })
	p.emit(ctx, by, "functions."+id+".delete", nil)
	return nil
}

// Runtimes lists the runtimes that functions can use here.
func (p *Project) Runtimes(ctx context.Context, by Actor) ([]Runtime, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return nil, err
	}
	caps, err := p.e.Capabilities(ctx)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	var out []Runtime
	for _, r := range caps.Runtimes {
		if p.e.runtimeAllowed(ctx, r.ID) == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// Specifications lists the sizes that functions can have here.
func (p *Project) Specifications(ctx context.Context, by Actor) ([]Specification, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return nil, err
	}
	return p.e.cfg.Limits.allowedSpecifications(), nil
}

// checkFunction applies the rules of the parameters, in their order on the wire.
func (e *Engine) checkFunction(f FunctionParams, create bool) error {
	var rules []rule
	if create {
		rules = append(rules, rule{"functionId", CheckNewID(f.ID)})
	}
	rules = append(rules, rule{"name", CheckText(f.Name, 1, MaxName)})
	if create || f.Runtime != "" {
		rules = append(rules, rule{"runtime", CheckEnum(f.Runtime, e.KnownRuntimes())})
	}
	rules = append(rules,
		rule{"execute", CheckRoles(f.Execute)},
		rule{"events", e.CheckEvents(f.Events)},
		rule{"schedule", CheckSchedule(f.Schedule)},
		rule{"timeout", CheckRange(cmp.Or(f.Timeout, DefaultTimeout), 1, e.cfg.Limits.Timeout)},
		rule{"entrypoint", CheckText(f.Entrypoint, 0, MaxEntrypoint)},
		rule{"commands", CheckText(f.Commands, 0, MaxCommands)},
		rule{"scopes", CheckScopes(f.Scopes)},
		rule{"installationId", CheckText(f.InstallationID, 0, MaxProvider)},
		rule{"providerRepositoryId", CheckText(f.ProviderRepositoryID, 0, MaxProvider)},
		rule{"providerBranch", CheckText(f.ProviderBranch, 0, MaxProvider)},
		rule{"providerRootDirectory", CheckText(f.ProviderRootDirectory, 0, MaxProvider)},
		rule{"templateRepository", CheckText(f.Template.Repository, 0, MaxProvider)},
		rule{"templateOwner", CheckText(f.Template.Owner, 0, MaxProvider)},
		rule{"templateRootDirectory", CheckText(f.Template.RootDirectory, 0, MaxProvider)},
		rule{"templateVersion", CheckText(f.Template.Version, 0, MaxProvider)},
		rule{"specification", e.CheckSpecification(f.Specification)},
	)
	return firstBroken(append(rules, policyRules(f.Policy.over(Policy{}))...))
}

// rule is a parameter and what its rule says of it.
type rule struct {
	param string
	err   error
}

func firstBroken(rules []rule) error {
	for _, r := range rules {
		if r.err != nil {
			return InvalidParam(r.param, r.err)
		}
	}
	return nil
}

// checkSources refuses source control and templates: no provider is connected.
func (f FunctionParams) checkSources() error {
	switch {
	case f.InstallationID != "":
		return Errorf(TypeInstallation, "")
	case f.ProviderRepositoryID != "":
		return Errorf(TypeArgument, `When connecting to VCS (Version Control System), you need to provide "installationId" and "providerBranch".`)
	case f.Template != Template{}:
		return Errorf(TypeTemplate, "")
	}
	return nil
}

// firstRevision is where a function's revisions start: a function that is made
// again must not have those that other engines remember of the old one.
func firstRevision() int64 { return 1 + rand.Int64N(1<<52) }

// checkQuota refuses another function when the project has max of them.
func (p *Project) checkQuota(ctx context.Context, tx store.Tx, max int) error {
	if max == 0 {
		return nil
	}
	n, err := tx.CountFunctions(ctx, p.id, Query{}, max)
	if err == nil && n >= max {
		return Errorf(TypeRateLimit, "The project has reached its limit of %d functions.", max)
	}
	return fail(err, "")
}

// apply writes the settings into a function. What is left out is its default,
// but for runtime and entrypoint, which stay.
func (e *Engine) apply(fn *Function, f FunctionParams, now time.Time) {
	fn.Name = f.Name
	fn.Runtime = cmp.Or(f.Runtime, fn.Runtime)
	fn.Execute, fn.Events, fn.Scopes = slices.Clone(f.Execute), slices.Clone(f.Events), slices.Clone(f.Scopes)
	policy := f.Policy.over(fn.Policy)
	if f.Schedule != fn.Schedule || policy.TimeZone != fn.Policy.TimeZone {
		fn.NextRunAt = time.Time{} // what the old one missed is not caught up
	}
	fn.Schedule, fn.Policy = f.Schedule, policy
	fn.Timeout = cmp.Or(f.Timeout, DefaultTimeout)
	fn.Enabled, fn.Logging = !f.Disabled, !f.NoLogging
	fn.Entrypoint = cmp.Or(f.Entrypoint, fn.Entrypoint)
	fn.Commands = f.Commands
	fn.Specification = cmp.Or(f.Specification, DefaultSpecification)
	fn.ProviderBranch, fn.ProviderRootDirectory, fn.ProviderSilentMode = f.ProviderBranch, f.ProviderRootDirectory, f.ProviderSilentMode
	reschedule(fn, now)
}

// sameSettings reports whether an update changed nothing a client can see.
func sameSettings(a, b Function) bool {
	lists := slices.Equal(a.Execute, b.Execute) && slices.Equal(a.Events, b.Events) && slices.Equal(a.Scopes, b.Scopes)
	return lists && a.Name == b.Name && a.Runtime == b.Runtime && a.Schedule == b.Schedule && a.Timeout == b.Timeout &&
		a.Enabled == b.Enabled && a.Logging == b.Logging && a.Live == b.Live && a.Entrypoint == b.Entrypoint &&
		a.Commands == b.Commands && a.Specification == b.Specification && a.ProviderBranch == b.ProviderBranch &&
		a.ProviderRootDirectory == b.ProviderRootDirectory && a.ProviderSilentMode == b.ProviderSilentMode && reflect.DeepEqual(a.Policy, b.Policy)
}
