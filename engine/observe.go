package engine

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
)

// observer counts what the engine does, through the meter the host gave.
type observer struct {
	on         bool // without a meter nothing is computed
	executions metric.Int64Counter
	duration   metric.Float64Histogram
	starts     metric.Float64Histogram
	builds     metric.Int64Counter
	drift      metric.Float64Histogram
	retries    metric.Int64Counter
	dead       metric.Int64Counter
	gone       metric.Int64Counter
}

func newObserver(c Config) (*observer, error) {
	o := &observer{on: c.Meter != nil}
	provider := c.Meter
	if provider == nil {
		provider = metricnoop.NewMeterProvider()
	}
	m := provider.Meter("github.com/fnkit/fnkit/engine")
	var errs [8]error
	o.executions, errs[0] = m.Int64Counter("fnkit.executions", metric.WithDescription("Executions that ended, by status and trigger."))
	o.duration, errs[1] = m.Float64Histogram("fnkit.execution.duration", metric.WithUnit("s"), metric.WithDescription("Time the function's code ran."))
	o.starts, errs[2] = m.Float64Histogram("fnkit.instance.start", metric.WithUnit("s"), metric.WithDescription("Time to start an instance."))
	o.builds, errs[3] = m.Int64Counter("fnkit.builds", metric.WithDescription("Builds that ended, by status."))
	o.drift, errs[4] = m.Float64Histogram("fnkit.schedule.drift", metric.WithUnit("s"), metric.WithDescription("How late a scheduled run was queued."))
	o.retries, errs[5] = m.Int64Counter("fnkit.retries", metric.WithDescription("Executions that failed and were queued again, by trigger."))
	o.dead, errs[6] = m.Int64Counter("fnkit.dead_letters", metric.WithDescription("Executions that became dead letters, by trigger."))
	o.gone, errs[7] = m.Int64Counter("fnkit.retention.removed", metric.WithDescription("Old records that were removed, by kind."))
	return o, errors.Join(errs[:]...)
}

func (o *observer) executed(x Execution) {
	if !o.on {
		return
	}
	set := metric.WithAttributes(attribute.String("status", string(x.Status)), attribute.String("trigger", string(x.Trigger)))
	o.executions.Add(context.Background(), 1, set)
	o.duration.Record(context.Background(), x.Duration.Seconds(), set)
}

func (o *observer) retried(x Execution) { o.count(o.retries, x) }

func (o *observer) deadLettered(x Execution) { o.count(o.dead, x) }

// count counts an execution by what triggered it.
func (o *observer) count(c metric.Int64Counter, x Execution) {
	if o.on {
		c.Add(context.Background(), 1, metric.WithAttributes(attribute.String("trigger", string(x.Trigger))))
	}
}

func (o *observer) coldStart(ctx context.Context, k *known, d time.Duration) {
	if o.on {
		o.starts.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("runtime", k.fn.Runtime)))
	}
}

func (o *observer) built(ctx context.Context, d Deployment) {
	if o.on {
		o.builds.Add(ctx, 1, metric.WithAttributes(attribute.String("status", string(d.Status))))
	}
}

func (o *observer) fired(ctx context.Context, late time.Duration) {
	if o.on {
		o.drift.Record(ctx, late.Seconds())
	}
}

func (o *observer) removed(ctx context.Context, kind string, n int) {
	if o.on {
		o.gone.Add(ctx, int64(n), metric.WithAttributes(attribute.String("kind", kind)))
	}
}
