package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
)

// scope names what the engine measures and traces.
const scope = "github.com/fnkit/fnkit/engine"

// maxDepth is how far a queue is counted.
const maxDepth = 10_000

// observer counts what the engine does, through the meter the host gave, and
// traces calls, through its tracer. README.md has the table of what there is.
type observer struct {
	on         bool // without a meter nothing is computed
	functions  bool // attributes name project and function
	tracer     trace.Tracer
	now        func() time.Time
	meter      metric.Meter
	executions metric.Int64Counter
	duration   metric.Float64Histogram
	compute    metric.Float64Counter
	starts     metric.Float64Histogram
	builds     metric.Int64Counter
	building   metric.Float64Histogram
	drift      metric.Float64Histogram
	retries    metric.Int64Counter
	dead       metric.Int64Counter
	claims     metric.Int64Counter
	losses     metric.Int64Counter
	gone       metric.Int64Counter
	depth      metric.Int64ObservableGauge
	instances  metric.Int64ObservableGauge
	followers  metric.Int64ObservableGauge
	observed   metric.Registration
}

func newObserver(c Config) (*observer, error) {
	o := &observer{on: c.Meter != nil, functions: c.MeterFunctions, now: c.Clock.Now}
	if c.Tracer != nil {
		o.tracer = c.Tracer.Tracer(scope)
	}
	provider := c.Meter
	if provider == nil {
		provider = metricnoop.NewMeterProvider()
	}
	o.meter = provider.Meter(scope)
	var errs []error
	counter := func(name, text string) metric.Int64Counter {
		i, err := o.meter.Int64Counter(name, metric.WithDescription(text))
		errs = append(errs, err)
		return i
	}
	seconds := func(name, text string) metric.Float64Histogram {
		i, err := o.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text))
		errs = append(errs, err)
		return i
	}
	gauge := func(name, text string) metric.Int64ObservableGauge {
		i, err := o.meter.Int64ObservableGauge(name, metric.WithDescription(text))
		errs = append(errs, err)
		return i
	}
	o.executions = counter("fnkit.executions", "Executions that ended, by status and trigger.")
	o.duration = seconds("fnkit.execution.duration", "Time the function's code ran.")
	var err error
	o.compute, err = o.meter.Float64Counter("fnkit.execution.compute", metric.WithUnit("GiBy.s"), metric.WithDescription("Memory of the specification times the time that the code ran."))
	errs = append(errs, err)
	o.starts = seconds("fnkit.instance.start", "Time to start an instance.")
	o.builds = counter("fnkit.builds", "Builds that ended, by status.")
	o.building = seconds("fnkit.build.duration", "Time a build took, by status.")
	o.drift = seconds("fnkit.schedule.drift", "How late a scheduled run was queued.")
	o.retries = counter("fnkit.retries", "Executions that failed and were queued again, by trigger.")
	o.dead = counter("fnkit.dead_letters", "Executions that became dead letters, by trigger.")
	o.claims = counter("fnkit.queue.claims", "Rows that this engine took from a queue.")
	o.losses = counter("fnkit.queue.lost_leases", "Rows that this engine worked on and another took over, or that were canceled or deleted.")
	o.gone = counter("fnkit.retention.removed", "Old records that were removed, by kind.")
	o.depth = gauge("fnkit.queue.depth", fmt.Sprintf("Rows that are due and that nobody works on, of the whole store, counted up to %d.", maxDepth))
	o.instances = gauge("fnkit.instances", "Instances there are, those that start or stop included.")
	o.followers = gauge("fnkit.log.followers", "Who follow logs through this engine.")
	return o, errors.Join(errs...)
}

// watch has the gauges read when the host's meter asks, until unwatch.
func (e *Engine) watch() (err error) {
	o := e.observe
	if !o.on {
		return nil
	}
	o.observed, err = o.meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		to.ObserveInt64(o.instances, int64(e.pool.Len()))
		to.ObserveInt64(o.followers, int64(e.feeds.count()))
		ctx, cancel := e.within(ctx, probeTimeout, errSlowPart)
		defer cancel()
		runs, err := e.store.Runs().Depth(ctx, e.clock.Now(), maxDepth)
		builds, failed := e.store.Builds().Depth(ctx, e.clock.Now(), maxDepth)
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		to.ObserveInt64(o.depth, int64(runs), metric.WithAttributes(attribute.String("queue", "runs")))
		to.ObserveInt64(o.depth, int64(builds), metric.WithAttributes(attribute.String("queue", "builds")))
		return nil
	}, o.depth, o.instances, o.followers)
	return err
}

func (e *Engine) unwatch() {
	if e.observe.observed == nil {
		return
	}
	if err := e.observe.observed.Unregister(); err != nil {
		e.cfg.Logger.Warn("unregister metrics", "error", err)
	}
}

// with returns attributes and, if the host asks for that, those of the function.
func (o *observer) with(project, function string, set ...attribute.KeyValue) metric.MeasurementOption {
	if o.functions {
		set = append(set, attribute.String("fnkit.project", project), attribute.String("faas.name", function))
	}
	return metric.WithAttributes(set...)
}

func (o *observer) executed(x Execution) {
	if !o.on {
		return
	}
	set := o.with(x.Project, x.FunctionID, attribute.String("status", string(x.Status)), attribute.String("trigger", string(x.Trigger)))
	o.executions.Add(context.Background(), 1, set)
	o.duration.Record(context.Background(), x.Duration.Seconds(), set)
}

// computed counts what an execution cost: GiB of memory times seconds.
func (o *observer) computed(x Execution, s Specification) {
	if o.on {
		o.compute.Add(context.Background(), float64(s.Memory)/1024*x.Duration.Seconds(), o.with(x.Project, x.FunctionID))
	}
}

func (o *observer) retried(x Execution) { o.count(o.retries, x) }

func (o *observer) deadLettered(x Execution) { o.count(o.dead, x) }

// count counts an execution by what triggered it.
func (o *observer) count(c metric.Int64Counter, x Execution) {
	if o.on {
		c.Add(context.Background(), 1, o.with(x.Project, x.FunctionID, attribute.String("trigger", string(x.Trigger))))
	}
}

func (o *observer) claimed(queue string, n int) { o.queued(o.claims, queue, n) }

func (o *observer) leasesLost(queue string, n int) { o.queued(o.losses, queue, n) }

func (o *observer) queued(c metric.Int64Counter, queue string, n int) {
	if o.on && n > 0 {
		c.Add(context.Background(), int64(n), metric.WithAttributes(attribute.String("queue", queue)))
	}
}

func (o *observer) coldStart(ctx context.Context, k *known, d time.Duration) {
	if o.on {
		o.starts.Record(ctx, d.Seconds(), o.with(k.fn.Project, k.fn.ID, attribute.String("runtime", k.fn.Runtime)))
	}
}

func (o *observer) built(ctx context.Context, d Deployment) {
	if o.on {
		set := o.with(d.Project, d.FunctionID, attribute.String("status", string(d.Status)))
		o.builds.Add(ctx, 1, set)
		o.building.Record(ctx, d.BuildEnded.Sub(d.BuildStarted).Seconds(), set)
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

// caller returns what a call that is made for ctx is part of.
func (o *observer) caller(ctx context.Context) trace.SpanContext {
	if o.tracer == nil {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(ctx)
}

// span begins the span of a call; end ends it. Without a tracer it does nothing.
func (o *observer) span(ctx context.Context, c call) (_ context.Context, end func(outcome, error)) {
	if o.tracer == nil {
		return ctx, func(outcome, error) {}
	}
	ctx, span := o.tracer.Start(trace.ContextWithSpanContext(ctx, c.caller), "fnkit.execution", trace.WithTimestamp(o.now()), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("fnkit.project", c.k.fn.Project), attribute.String("faas.name", c.k.fn.ID),
			attribute.String("faas.version", c.k.dep.ID), attribute.String("faas.invocation_id", c.id)))
	return ctx, func(out outcome, err error) {
		switch {
		case err != nil:
			span.SetStatus(codes.Error, "the function's code did not run")
		case out.failed:
			span.SetStatus(codes.Error, "the execution failed")
		}
		span.End(trace.WithTimestamp(o.now()))
	}
}
