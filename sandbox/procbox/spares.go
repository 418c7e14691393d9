package procbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// A spare is an instance that nobody has asked for yet: a process with its
// harness, shut in, that waits for BIND.

// spareKey says which starts a spare can serve. What it is not about, such as
// limits, a spare gets when it is bound.
type spareKey struct {
	runtime string
	network sandbox.Network // never the default: what that means
}

// spares are those of a Box, whose mutex guards them.
type spares struct {
	wanted   map[string]int    // of a runtime and each network; by runtime
	networks map[spareKey]bool // those that were asked for beside the default
	ready    map[spareKey][]*instance
	filling  map[spareKey]int       // those that start
	unbound  map[*instance]spareKey // that start or are ready
	failed   map[spareKey]int       // that did not become ready, or died waiting, since one was used
	unfit    map[spareKey]int       // that could not be completed, since one was
	soon     bool                   // a refill is about to begin
	starting int                    // instances that start without a spare, or wait for their turn
}

func newSpares() spares {
	return spares{
		wanted: map[string]int{}, networks: map[spareKey]bool{}, ready: map[spareKey][]*instance{}, filling: map[spareKey]int{},
		unbound: map[*instance]spareKey{}, failed: map[spareKey]int{}, unfit: map[spareKey]int{},
	}
}

const (
	// maxSpares bounds those of one runtime and network.
	maxSpares = 256
	// maxFailed is how many spares may fail one after the other before no more are
	// made, until a start shows that it can work.
	maxFailed = 3
	// fillTimeout is how long a spare may take to be ready. It has what others leave.
	fillTimeout = time.Minute
)

// turns is how many processes may start at once. More only get into each other's way.
var turns = max(2, 2*runtime.NumCPU())

// fills is how many spares may start at once.
var fills = max(1, runtime.NumCPU()/2)

// startTurn is how long a start may keep its turn: what comes before the harness is
// ready can be user code.
const startTurn = time.Second

// spared reports whether spares can be made of a tool's runtime: with a harness that
// takes any code, where the code can be shown later.
func (b *Box) spared(t tool) bool {
	if t.lang.file == "" {
		return false
	}
	// Without a place of its own that is always the same, nothing at the start may say where the code is.
	return b.host.Namespaces() || !b.confines() && t.lang.starts == nil
}

// Warm implements sandbox.Driver. Up to 256 spares are kept, of each network policy
// that starts have asked for.
func (b *Box) Warm(_ context.Context, runtime string, n int) error {
	t, err := b.tool(runtime)
	if err != nil || !b.spared(t) {
		return err
	}
	network, err := b.network(sandbox.NetworkDefault, b.cfg.Network)
	if err != nil {
		return err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	s := &b.spares
	s.wanted[runtime] = min(max(n, 0), maxSpares)
	s.networks[spareKey{runtime, network}] = true
	var surplus []*instance
	for k := range s.networks {
		if k.runtime != runtime {
			continue
		}
		s.failed[k], s.unfit[k] = 0, 0
		for len(s.ready[k]) > s.wanted[runtime] {
			surplus = append(surplus, s.ready[k][0])
			s.ready[k] = s.ready[k][1:]
		}
	}
	b.mu.Unlock()
	for _, i := range surplus {
		b.end(i, "")
	}
	b.refill()
	return nil
}

// Spares is how many spares of a runtime are ready.
func (b *Box) Spares(runtime string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, all := range b.spares.ready {
		if k.runtime == runtime {
			n += len(all)
		}
	}
	return n
}

// refill starts spares that are lacking, a few at once, and none while anybody
// waits for a start of its own.
func (b *Box) refill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.spares
	for !b.closed && s.starting == 0 {
		k, ok := s.lacking()
		if !ok {
			return
		}
		s.filling[k]++
		b.active.Add(1)
		go b.fill(k)
	}
}

// refillSoon leaves an instance that was started just now the time for its first call.
func (b *Box) refillSoon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.spares.soon || len(b.spares.networks) == 0 {
		return
	}
	b.spares.soon = true
	b.active.Add(1)
	time.AfterFunc(refillPause, func() {
		defer b.active.Done()
		b.note(func(s *spares) { s.soon = false })
		b.refill()
	})
}

// refillPause is after how long a spare that was used is replaced.
const refillPause = 20 * time.Millisecond

// lacking returns which spare to make next.
func (s *spares) lacking() (spareKey, bool) {
	total := 0
	for _, n := range s.filling {
		total += n
	}
	if total >= fills {
		return spareKey{}, false
	}
	for k := range s.networks {
		if s.failed[k] < maxFailed && s.unfit[k] < maxFailed && len(s.ready[k])+s.filling[k] < s.wanted[k.runtime] {
			return k, true
		}
	}
	return spareKey{}, false
}

// fill makes a spare.
func (b *Box) fill(k spareKey) {
	defer b.active.Done()
	i, err := b.spare(k)
	b.mu.Lock()
	s := &b.spares
	s.filling[k]--
	_, lives := s.unbound[i]
	keep := err == nil && lives && !b.closed && len(s.ready[k]) < s.wanted[k.runtime]
	switch {
	case keep:
		s.ready[k] = append(s.ready[k], i)
	case err != nil && !b.closed:
		s.failed[k]++
	}
	b.mu.Unlock()
	if i != nil && !keep {
		b.end(i, "")
	}
	if err != nil && b.ctx.Err() == nil {
		b.log.Warn("start a spare", "runtime", k.runtime, "error", err)
	}
	b.refill()
}

// spare starts one and waits until it is ready.
func (b *Box) spare(k spareKey) (*instance, error) {
	t, err := b.tool(k.runtime)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, fillTimeout)
	defer cancel()
	i, err := b.launch(t, sandbox.Spec{Network: k.network}, &k)
	if err != nil {
		return nil, err
	}
	return i, i.greet(ctx)
}

// stocked reports whether a spare is ready for a specification, and has there be some
// from now on if its runtime has spares at all.
func (b *Box) stocked(spec sandbox.Spec) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, k := &b.spares, spareKey{spec.Runtime, spec.Network}
	if s.wanted[k.runtime] > 0 {
		s.networks[k] = true
	}
	return len(s.ready[k]) > 0
}

// adopt takes a spare for a specification, or returns nil if none is ready.
func (b *Box) adopt(t tool, spec sandbox.Spec) (*instance, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, k := &b.spares, spareKey{spec.Runtime, spec.Network}
	n := len(s.ready[k])
	if n == 0 {
		return nil, nil
	}
	if err := b.free(spec.ID); err != nil {
		return nil, err
	}
	i := s.ready[k][n-1] // the last one's memory is the warmest
	s.ready[k] = s.ready[k][:n-1]
	delete(s.unbound, i)
	i.adopt(t, spec)
	b.instances[spec.ID] = i
	return i, nil
}

// adopt makes a spare the instance of a specification. The Box's mutex is held.
func (i *instance) adopt(t tool, spec sandbox.Spec) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.info, i.memory = info(t, spec), spec.Memory
}

// fromSpare returns an instance that was a spare and is ready to load the code; nil:
// there is none that fits.
func (b *Box) fromSpare(ctx context.Context, t tool, spec sandbox.Spec) (*instance, error) {
	for {
		if !b.stocked(spec) || !b.fits(spec) {
			return nil, nil
		}
		i, err := b.adopt(t, spec)
		if i == nil || err != nil {
			return nil, err
		}
		err = b.complete(ctx, i, spec)
		if err == nil && i.conn.Err() == nil {
			b.note(func(s *spares) { s.unfit[i.spareOf], s.failed[i.spareOf] = 0, 0 })
			return i, nil
		}
		b.end(i, "")
		if ctx.Err() != nil {
			<-i.dead
			return nil, ctx.Err()
		}
		if err != nil {
			b.log.Warn("complete a spare", "runtime", spec.Runtime, "error", err)
			b.note(func(s *spares) { s.unfit[i.spareOf]++ })
			return nil, nil
		}
	}
}

// note changes what is known of spares.
func (b *Box) note(change func(s *spares)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.spares)
}

// complete gives a spare what its specification says and a new process would have
// had from the start.
func (b *Box) complete(ctx context.Context, i *instance, spec sandbox.Spec) error {
	if i.job.cell == nil {
		return nil
	}
	late := confine.Late{TempSize: tempSize(spec.Memory), Memory: spec.Memory, CPUs: spec.CPUs}
	if b.host.ShowsLate() {
		late.Dir = spec.Dir
	} else if err := share(spec.Dir, filepath.Join(i.scratch, "code")); err != nil {
		return err
	}
	return i.job.cell.Complete(ctx, late)
}

// maxShared is of how many files code may consist to be shown by linking them.
const maxShared = 1000

// fits reports whether a spare can be shown the code of a specification.
func (b *Box) fits(spec sandbox.Spec) bool {
	if !b.confines() || b.host.ShowsLate() {
		return true
	}
	n := 0
	err := filepath.WalkDir(spec.Dir, func(_ string, d fs.DirEntry, err error) error {
		if n++; n > maxShared {
			return fs.SkipAll
		}
		return err
	})
	return err == nil && n <= maxShared
}

// share makes the tree at from appear at to, an empty directory, which the program
// sees read-only: by links to the same files, or copies, where there can be no links.
func share(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil || name == "." {
			return err
		}
		at := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return os.Mkdir(at, 0o700)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is no file", path)
		}
		if err := os.Link(path, at); err == nil {
			return nil
		}
		return copyFile(path, at)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// takeTurn waits until a process may start; done gives the turn back.
func (b *Box) takeTurn(ctx context.Context) (done func(), err error) {
	b.starting(1)
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		b.starting(-1)
		return nil, ctx.Err()
	}
	give := sync.OnceFunc(func() {
		<-b.turns
		b.starting(-1)
	})
	timer := time.AfterFunc(startTurn, give)
	return func() { timer.Stop(); give() }, nil
}

func (b *Box) starting(n int) { b.note(func(s *spares) { s.starting += n }) }

// retire takes a spare off the shelf, if the instance is one. The Box's mutex is held.
func (s *spares) retire(i *instance) {
	k, unbound := s.unbound[i]
	if !unbound {
		return
	}
	delete(s.unbound, i)
	before := len(s.ready[k])
	s.ready[k] = slices.DeleteFunc(s.ready[k], func(r *instance) bool { return r == i })
	if len(s.ready[k]) < before {
		s.failed[k]++ // nobody has ended it
	}
}
