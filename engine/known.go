package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/store"
)

// known is what a call needs of a function: read once, used until its
// revision changes. Nothing but minted is changed after it was made.
type known struct {
	fn     Function
	dep    Deployment        // the active one; zero if there is none
	shared map[string]string // the project's variables
	env    map[string]string // the whole environment
	spec   Specification
	rt     Runtime
	has    bool // the sandbox can run rt
	minted atomic.Pointer[minted]
}

// instanceKey names the instances that may serve calls of this state.
func (k *known) instanceKey() string {
	key := functionPrefix(k.fn.ID) + k.dep.ID + "@" + itoa(k.fn.Revision)
	if len(k.shared) > 0 {
		key += "+" + digest(k.shared)
	}
	return key
}

// splitInstanceKey returns what an instanceKey is of. No id has a "/" or an "@" in it.
func splitInstanceKey(key string) (function, deployment string) {
	function, state, _ := strings.Cut(key, "/")
	deployment, _, _ = strings.Cut(state, "@")
	return function, deployment
}

// digest is short, and differs for maps that differ.
func digest(m map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(h, "%q=%q\n", name, m[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func functionPrefix(id string) string { return id + "/" }

type functionKey struct{ project, id string }

// knowledge remembers functions. What this engine changes it forgets at once;
// what others change it notices within maxStale, by one cheap read.
type knowledge struct {
	mu       sync.Mutex
	entries  map[functionKey]*entry
	readings map[functionKey]*reading
	changing map[functionKey]int // how many changes are being written: nothing is remembered meanwhile
	changes  uint64              // counts forget, so that a read that began before is not kept
}

type entry struct {
	known   *known
	checked time.Time
}

// maxKnown bounds how many functions are remembered.
const maxKnown = 10_000

// reading is what one call reads of a function. Others who come meanwhile take what
// it finds, unless it began before a change.
type reading struct {
	began   time.Time
	changes uint64
	over    chan struct{}
	known   *known // when it is over; nil: it failed
}

// resolve returns the current state of a function, or function_not_found.
func (e *Engine) resolve(ctx context.Context, project, id string) (*known, error) {
	key, now, kn := functionKey{project, id}, e.clock.Now(), &e.knowledge
	kn.mu.Lock()
	have, other, changing := kn.entries[key], kn.readings[key], kn.changing[key] > 0
	if have != nil && !changing && now.Sub(have.checked) < e.cfg.Work.MaxStaleness {
		kn.mu.Unlock()
		return have.known, nil
	}
	own := &reading{began: now, changes: kn.changes, over: make(chan struct{})}
	if other == nil || changing || other.changes != kn.changes || now.Sub(other.began) >= e.cfg.Work.MaxStaleness {
		kn.readings[key], other = own, nil
	}
	kn.mu.Unlock()
	if other != nil {
		select {
		case <-other.over:
		case <-ctx.Done():
		}
		if ctx.Err() == nil && other.known != nil {
			return other.known, nil
		}
	}
	defer func() {
		kn.mu.Lock()
		defer kn.mu.Unlock()
		if kn.readings[key] == own {
			delete(kn.readings, key)
		}
		close(own.over)
	}()
	k, err := e.read(ctx, key, have, own)
	if err == nil {
		own.known = k
	}
	return k, err
}

// read reads a function, of which only the revision if that is known already.
func (e *Engine) read(ctx context.Context, key functionKey, have *entry, r *reading) (*known, error) {
	if have != nil {
		fresh, err := e.fresh(ctx, have.known)
		if errors.Is(err, store.ErrNotFound) {
			e.forget(key.project, key.id) // another engine deleted it
		}
		if err != nil {
			return nil, fail(err, TypeFunction)
		}
		if fresh {
			e.remember(key, &entry{have.known, r.began}, r.changes)
			return have.known, nil
		}
	}
	k, err := e.load(ctx, key)
	if err != nil {
		return nil, err
	}
	if have != nil {
		e.retireInstances(key, k.instanceKey())
	}
	e.remember(key, &entry{k, r.began}, r.changes)
	return k, nil
}

// fresh reports whether what is known of a function is still so. Variables of
// the project that cannot be had at the moment are taken for unchanged.
func (e *Engine) fresh(ctx context.Context, k *known) (bool, error) {
	revision, err := e.store.FunctionRevision(ctx, k.fn.Project, k.fn.ID)
	if err != nil || revision != k.fn.Revision {
		return false, err
	}
	shared, err := e.projectVariables(ctx, k.fn.Project)
	if err != nil {
		e.cfg.Logger.Warn("read project variables", "project", k.fn.Project, "error", err)
		return true, nil
	}
	return k.env == nil || maps.Equal(shared, k.shared), nil
}

// current is resolve for who wants to run the function: if it cannot run, it is
// read again, since another engine may have changed that just now.
func (e *Engine) current(ctx context.Context, project, id string) (*known, error) {
	k, err := e.resolve(ctx, project, id)
	if err != nil || k.runnable() == nil {
		return k, err
	}
	return e.load(ctx, functionKey{project, id})
}

// deletedSince reports whether a function was deleted since a call of it began.
// The store is only asked when that may be: something changed here, or the call
// took long enough for another engine to delete it.
func (e *Engine) deletedSince(ctx context.Context, k *known, began time.Time) bool {
	e.knowledge.mu.Lock()
	have := e.knowledge.entries[functionKey{k.fn.Project, k.fn.ID}]
	e.knowledge.mu.Unlock()
	if have != nil && have.known == k && e.clock.Since(began) < e.cfg.Work.MaxStaleness {
		return false
	}
	_, err := e.store.FunctionRevision(ctx, k.fn.Project, k.fn.ID)
	return errors.Is(err, store.ErrNotFound)
}

// remember keeps what was read, unless something changed since the read began.
func (e *Engine) remember(key functionKey, n *entry, changes uint64) {
	kn := &e.knowledge
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.changes != changes || kn.changing[key] > 0 {
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

// changing has a function read anew by each call until done is called: others
// may see a change in the store before this engine has forgotten what was.
func (e *Engine) changing(project, id string) (done func()) {
	key, kn := functionKey{project, id}, &e.knowledge
	kn.mu.Lock()
	defer kn.mu.Unlock()
	kn.changing[key]++
	return func() {
		kn.mu.Lock()
		defer kn.mu.Unlock()
		if kn.changing[key]--; kn.changing[key] == 0 {
			delete(kn.changing, key)
		}
	}
}

// forget drops what is known of a function and retires its instances, so that
// the very next call sees a change.
func (e *Engine) forget(project, id string) {
	key := functionKey{project, id}
	e.unlearn(key)
	e.retireInstances(key, "")
}

// unlearn drops what is known of a function.
func (e *Engine) unlearn(key functionKey) {
	e.knowledge.mu.Lock()
	defer e.knowledge.mu.Unlock()
	delete(e.knowledge.entries, key)
	e.knowledge.changes++
}

// load reads a function's state from the store.
func (e *Engine) load(ctx context.Context, key functionKey) (*known, error) {
	fn, err := e.store.GetFunction(ctx, key.project, key.id)
	if err != nil {
		return nil, fail(err, TypeFunction)
	}
	k := &known{fn: fn, spec: specification(fn.Specification)}
	if k.rt, k.has, err = e.runtime(ctx, fn.Runtime); err != nil || fn.Deployment == "" {
		return k, err
	}
	k.dep, err = e.store.GetDeployment(ctx, key.project, key.id, fn.Deployment)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fail(err, "")
	}
	if k.shared, err = e.projectVariables(ctx, key.project); err != nil {
		return nil, err
	}
	k.env, err = e.environment(ctx, k)
	return k, err
}
