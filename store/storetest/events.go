package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/store"
)

func (s *suite) listeners() {
	add := func(project, id string, change func(*store.Function)) {
		f := s.function(id)
		f.Project, f.Deployment = project, "d"
		f.Events = []string{"users.*.create", "teams.T.delete"}
		change(&f)
		_, err := s.CreateFunction(s.ctx, f)
		s.must(err)
	}
	add(s.project, "first", func(*store.Function) {})
	add(s.project, "none", func(f *store.Function) { f.Events = nil })
	add(s.project, "other", func(f *store.Function) { f.Events = []string{"users.*.creates", "USERS.*.create", "teams.T"} })
	add(s.project, "disabled", func(f *store.Function) { f.Enabled = false })
	add(s.project, "undeployed", func(f *store.Function) { f.Deployment = "" })
	add(s.project, "last", func(f *store.Function) { f.Events = []string{"users.*.create"} })
	add(s.project+"-other", "elsewhere", func(*store.Function) {})
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"users.U.create", "users.*.create"}, "[first last]"},
		{[]string{"teams.T.delete", "users.*.create"}, "[first last]"},
		{[]string{"teams.T.delete"}, "[first]"},
		{[]string{"users"}, "[]"},
		{nil, "[]"},
	} {
		found, err := s.Listeners(s.ctx, s.project, c.names)
		s.must(err)
		ids := []string{}
		for _, f := range found {
			ids = append(ids, f.ID)
		}
		if fmt.Sprint(ids) != c.want {
			s.Errorf("%v: %v, want %s", c.names, ids, c.want)
		}
	}
}

func (s *suite) keys() {
	k := store.Key{Project: s.project, Kind: store.EventKey, Name: "e1", Value: "first", ExpiresAt: past(10)}
	claim := func(k store.Key, now time.Time) (store.Key, error) { return s.ClaimKey(s.ctx, k, now) }
	_, err := claim(k, past(1))
	s.must(err)
	again := k
	again.Value, again.ExpiresAt = "second", past(20)
	held, err := claim(again, past(9))
	s.is(err, store.ErrExists)
	s.same("held", held, k)
	for _, other := range []store.Key{
		{Project: s.project + "-other", Kind: k.Kind, Name: k.Name, ExpiresAt: past(10)},
		{Project: s.project, Kind: "another", Name: k.Name, ExpiresAt: past(10)},
		{Project: s.project, Kind: k.Kind, Name: "E1", ExpiresAt: past(10)},
	} {
		_, err := claim(other, past(1))
		s.must(err)
	}
	_, err = claim(again, past(10)) // the first has expired
	s.must(err)
	held, err = claim(k, past(11))
	s.is(err, store.ErrExists)
	s.same("held", held, again)

	failure := errors.New("no")
	s.is(s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
		_, err := tx.ClaimKey(ctx, store.Key{Project: s.project, Kind: k.Kind, Name: "rolled back", ExpiresAt: past(10)}, past(1))
		return errors.Join(err, failure)
	}), failure)
	_, err = claim(store.Key{Project: s.project, Kind: k.Kind, Name: "rolled back", ExpiresAt: past(10)}, past(1))
	s.must(err)

	answered := again
	answered.Answer = []byte{0, 1, 2}
	s.must(s.AnswerKey(s.ctx, answered))
	held, err = claim(k, past(11))
	s.is(err, store.ErrExists)
	s.same("answered", held, answered)
	held, err = s.GetKey(s.ctx, k.Project, k.Kind, k.Name)
	s.must(err)
	s.same("read", held, answered)
	_, err = s.GetKey(s.ctx, k.Project, k.Kind, "none")
	s.is(err, store.ErrNotFound)
	_, err = s.GetKey(s.ctx, k.Project, "none", k.Name)
	s.is(err, store.ErrNotFound)
	other := k // of the value before
	s.is(s.AnswerKey(s.ctx, other), store.ErrNotFound)
	s.must(s.DeleteKey(s.ctx, other))
	held, err = claim(k, past(11))
	s.is(err, store.ErrExists)
	s.same("kept", held, answered)
	s.must(s.DeleteKey(s.ctx, again))
	s.must(s.DeleteKey(s.ctx, again))
	s.is(s.AnswerKey(s.ctx, again), store.ErrNotFound)
	_, err = claim(again, past(11))
	s.must(err)

	for n := 1; n > 0; {
		n, err = s.DeleteKeys(s.ctx, past(15), 2)
		if s.must(err); n > 2 {
			s.Errorf("deleted %d", n)
		}
	}
	_, err = claim(k, past(12))
	s.is(err, store.ErrExists) // the one that expires at 20
	_, err = claim(store.Key{Project: s.project, Kind: k.Kind, Name: "E1", ExpiresAt: past(10)}, past(1))
	s.must(err)
	s.must(s.DeleteProject(s.ctx, s.project))
	_, err = claim(k, past(1))
	s.must(err)
	s.onlyOneClaims()
}

// onlyOneClaims has engines claim one key at once.
func (s *suite) onlyOneClaims() {
	var won atomic.Int32
	var engines sync.WaitGroup
	for range 8 {
		engines.Go(func() {
			err := s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
				_, err := tx.ClaimKey(ctx, store.Key{Project: s.project, Kind: store.EventKey, Name: "raced", ExpiresAt: past(10)}, past(1))
				return err
			})
			if err == nil {
				won.Add(1)
			} else {
				s.is(err, store.ErrExists)
			}
		})
	}
	engines.Wait()
	if won.Load() != 1 {
		s.Errorf("%d claimed", won.Load())
	}
}
