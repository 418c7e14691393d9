package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// PolicyParams change a Policy. What is nil is kept, on create it is the
// default; a pointer to the zero value goes back to the default.
type PolicyParams struct {
	TimeZone *string
	CatchUp  *CatchUp
	Retry    *Retry
	Priority *int

	Concurrency     *int
	LaneConcurrency *int
	Rate            *Rate
	LaneRate        *Rate

	Network *string
}

// over returns a policy with the changes.
func (p PolicyParams) over(policy Policy) Policy {
	change(&policy.TimeZone, p.TimeZone)
	change(&policy.CatchUp, p.CatchUp)
	change(&policy.Retry, p.Retry)
	if len(policy.Retry.On) == 0 {
		policy.Retry.On = nil
	}
	change(&policy.Priority, p.Priority)
	change(&policy.Concurrency, p.Concurrency)
	change(&policy.LaneConcurrency, p.LaneConcurrency)
	change(&policy.Rate, p.Rate)
	change(&policy.LaneRate, p.LaneRate)
	change(&policy.Network, p.Network)
	return policy
}

func change[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

// Limits of policies.
const (
	MaxAttempts = 100
	MaxBackoff  = 24 * 60 * 60 // seconds
	MaxPriority = 100          // and as much below 0

	MaxConcurrency = 1_000_000
	MaxRate        = 1_000_000
	MaxPeriod      = 24 * 60 * 60 // seconds
	MaxLane        = 255
)

// policyRules are the rules of a policy, under the names they have on the wire.
func policyRules(p Policy) []rule {
	return []rule{
		{"fnkit.timeZone", CheckTimeZone(p.TimeZone)},
		{"fnkit.catchUp", CheckCatchUp(p.CatchUp)},
		{"fnkit.retry.attempts", CheckRange(p.Retry.Attempts, 0, MaxAttempts)},
		{"fnkit.retry.backoff", CheckRange(p.Retry.Backoff, 0, MaxBackoff)},
		{"fnkit.retry.maxBackoff", CheckRange(p.Retry.MaxBackoff, 0, MaxBackoff)},
		{"fnkit.retry.on", CheckFailures(p.Retry.On)},
		{"fnkit.priority", CheckRange(p.Priority, -MaxPriority, MaxPriority)},
		{"fnkit.concurrency", CheckRange(p.Concurrency, 0, MaxConcurrency)},
		{"fnkit.laneConcurrency", CheckRange(p.LaneConcurrency, 0, MaxConcurrency)},
		{"fnkit.rate", CheckRate(p.Rate)},
		{"fnkit.laneRate", CheckRate(p.LaneRate)},
		{"fnkit.network", CheckNetwork(p.Network)},
	}
}

// CheckNetwork is the rule of what a function's code can reach; empty means what
// the sandbox is configured to allow.
func CheckNetwork(name string) error {
	return CheckEnum(cmp.Or(name, string(sandbox.NetworkNone)), []string{string(sandbox.NetworkNone), string(sandbox.NetworkHost)})
}

// networkAllowed refuses a network that the sandbox does not give.
func (e *Engine) networkAllowed(ctx context.Context, name *string) error {
	if name == nil || *name == "" {
		return nil
	}
	caps, err := e.Capabilities(ctx)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if !slices.Contains(caps.Networks, sandbox.Network(*name)) {
		return InvalidParam("fnkit.network", fmt.Errorf("the sandbox of this server has no network %q for functions; it has %q", *name, caps.Networks))
	}
	return nil
}

// CheckRate is the rule of a rate; the zero Rate is no limit.
func CheckRate(r Rate) error {
	if r == (Rate{}) {
		return nil
	}
	if err := CheckRange(r.Limit, 1, MaxRate); err != nil {
		return fmt.Errorf("its limit: %w", err)
	}
	if err := CheckRange(r.Period, 1, MaxPeriod); err != nil {
		return fmt.Errorf("its period: %w", err)
	}
	return nil
}

// Failures are the ways in which a run fails.
func Failures() []Failure {
	return []Failure{store.FailureError, store.FailureTimeout, store.FailureCrash}
}

// CheckFailures is the rule of the failures after which an execution is run again.
func CheckFailures(on []Failure) error {
	for i, f := range on {
		if !slices.Contains(Failures(), f) {
			return fmt.Errorf("Value must be a list of (%s, %s, %s)", store.FailureError, store.FailureTimeout, store.FailureCrash)
		}
		if slices.Contains(on[:i], f) {
			return errors.New("Value must not name one twice")
		}
	}
	return nil
}

// RetryDefaults returns a retry policy with its defaults: a backoff of 1 second,
// which grows up to an hour, after every failure.
func RetryDefaults(r Retry) Retry {
	r.Backoff = cmp.Or(r.Backoff, 1)
	r.MaxBackoff = cmp.Or(r.MaxBackoff, max(60*60, r.Backoff))
	if len(r.On) == 0 {
		r.On = Failures()
	}
	return r
}

// backoff is how long an execution waits that has failed tries times: twice as
// long as the time before, and half of that up to chance, so that those that
// failed together do not come back together.
func backoff(r Retry, tries int) time.Duration {
	r = RetryDefaults(r)
	seconds := min(float64(r.MaxBackoff), float64(r.Backoff)*float64(uint64(1)<<min(tries-1, 40)))
	d := time.Duration(seconds * float64(time.Second))
	return d/2 + rand.N(d/2+1)
}

// retries reports whether a policy runs an execution again that failed in this
// way, for the time that tries counts.
func retries(r Retry, why Failure, tries int) bool {
	return tries < r.Attempts && slices.Contains(RetryDefaults(r).On, why)
}
