package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// known is what a call needs of a function: read once, used until its
// revision changes. It is never changed after it was made.
type known struct {
	fn   Function
	dep  Deployment // the active one; zero if there is none
	env  map[string]string
	spec Specification
	rt   Runtime
	has  bool // the sandbox can run rt
}

// instanceKey names the instances that may serve calls of this state.
func (k *known) instanceKey() string {
	return functionPrefix(k.fn.ID) + k.dep.ID + "@" + itoa(k.fn.Revision)
}

func functionPrefix(id string) string { return id + "/" }

type functionKey struct{ project, id string }

// knowledge remembers functions. What this engine changes it forgets at once;
// what others change it notices within maxStale, by one cheap read.
type knowledge struct {
	mu      sync.Mutex
	entries map[functionKey]*entry
	changes uint64 // counts forget, so that a read that began before is not kept
}

type entry struct {
	known   *known
	checked time.Time
}

// maxKnown bounds how many functions are remembered.
const maxKnown = 10_000

// resolve returns the current state of a function, or function_not_found.
func (e *Engine) resolve(ctx context.Context, project, id string) (*known, error) {
	key, now := functionKey{project, id}, e.clock.Now()
	e.knowledge.mu.Lock()
	have, changes := e.knowledge.entries[key], e.knowledge.changes
	e.knowledge.mu.Unlock()
	if have != nil {
		if now.Sub(have.checked) < e.cfg.Work.MaxStaleness {
			return have.known, nil
		}
		revision, err := e.store.FunctionRevision(ctx, project, id)
		if err != nil {
			return nil, fail(err, TypeFunction)
		}
		if revision == have.known.fn.Revision {
			e.remember(key, &entry{have.known, now}, changes)
			return have.known, nil
		}
		e.retireInstances(key)
	}
	k, err := e.load(ctx, key)
	if err != nil {
		return nil, err
	}
	e.remember(key, &entry{k, now}, changes)
	return k, nil
}

// remember keeps what was read, unless something changed since the read began.
func (e *Engine) remember(key functionKey, n *entry, changes uint64) {
	kn := &e.knowledge
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.changes != changes {
		return
	}
	for old := range kn.entries {
		if len(kn.entries) < maxKnown {
			break
		}
		delete(kn.entries, old)
	}
	kn.entries[key] = n
}

// forget drops what is known of a function and retires its instances, so that
// the very next call sees a change.
func (e *Engine) forget(project, id string) {
	key := functionKey{project, id}
	e.knowledge.mu.Lock()
	delete(e.knowledge.entries, key)
	e.knowledge.changes++
	e.knowledge.mu.Unlock()
	e.retireInstances(key)
}

// load reads a function's state from the store.
func (e *Engine) load(ctx context.Context, key functionKey) (*known, error) {
	fn, err := e.store.GetFunction(ctx, key.project, key.id)
	if err != nil {
		return nil, fail(err, TypeFunction)
	}
	k := &known{fn: fn, spec: specification(fn.Specification)}
	k.rt, k.has = e.runtime(fn.Runtime)
	if fn.Deployment == "" {
		return k, nil
	}
	k.dep, err = e.store.GetDeployment(ctx, key.project, key.id, fn.Deployment)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fail(err, "")
	}
	k.env, err = e.environment(ctx, k)
	return k, err
}
