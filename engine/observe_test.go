package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	traceembedded "go.opentelemetry.io/otel/trace/embedded"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// measures are a meter that adds up what is measured, by name and attributes.
type measures struct {
	embedded.MeterProvider
	meter
	mu    sync.Mutex
	sums  map[string]float64
	asked func(context.Context, metric.Observer) error
}

// meter has another name than the method that returns it.
type meter struct{ metricnoop.Meter }

func (m *measures) add(name string, v float64, set attribute.Set) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var parts []string
	for _, kv := range set.ToSlice() {
		parts = append(parts, string(kv.Key)+"="+kv.Value.String())
	}
	m.sums[name+"{"+strings.Join(parts, " ")+"}"] += v
}

func (m *measures) all() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, v := range m.sums {
		out = append(out, fmt.Sprintf("%s %g", name, v))
	}
	slices.Sort(out)
	return out
}

func (m *measures) Meter(string, ...metric.MeterOption) metric.Meter { return m }

func (m *measures) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return counter{name: name, m: m}, nil
}

func (m *measures) Float64Counter(name string, _ ...metric.Float64CounterOption) (metric.Float64Counter, error) {
	return sum{name: name, m: m}, nil
}

func (m *measures) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return histogram{name: name, m: m}, nil
}

func (m *measures) Int64ObservableGauge(name string, _ ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return gauge{name: name}, nil
}

func (m *measures) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	m.asked = f
	return registration{m: m}, nil
}

// ask reads the gauges.
func (m *measures) ask(t *testing.T) {
	t.Helper()
	if err := m.asked(t.Context(), observation{m: m}); err != nil {
		t.Error(err)
	}
}

type (
	counter struct {
		metricnoop.Int64Counter
		name string
		m    *measures
	}
	sum struct {
		metricnoop.Float64Counter
		name string
		m    *measures
	}
	histogram struct {
		metricnoop.Float64Histogram
		name string
		m    *measures
	}
	gauge struct {
		metricnoop.Int64ObservableGauge
		name string
	}
	registration struct {
		metricnoop.Registration
		m *measures
	}
	observation struct {
		metricnoop.Observer
		m *measures
	}
)

func (c counter) Add(_ context.Context, n int64, o ...metric.AddOption) {
	c.m.add(c.name, float64(n), metric.NewAddConfig(o).Attributes())
}

func (s sum) Add(_ context.Context, v float64, o ...metric.AddOption) {
	s.m.add(s.name, v, metric.NewAddConfig(o).Attributes())
}

// Record counts, since durations differ.
func (h histogram) Record(_ context.Context, _ float64, o ...metric.RecordOption) {
	h.m.add(h.name, 1, metric.NewRecordConfig(o).Attributes())
}

func (o observation) ObserveInt64(g metric.Int64Observable, v int64, opts ...metric.ObserveOption) {
	o.m.add(g.(gauge).name, float64(v), metric.NewObserveConfig(opts).Attributes())
}

func (r registration) Unregister() error {
	r.m.asked = nil
	return nil
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := &measures{sums: map[string]float64{}}
	kit := enginetest.New(t, fnbox.Funcs{
		"f": ok, "fails": func(context.Context, *fnbox.Context) error { return context.Canceled },
	}, func(c *engine.Config) { c.Meter, c.Retention.Executions, c.Instances.Idle = m, day, 1000*day })
	kit.Deploy("p", engine.FunctionParams{ID: "f", Schedule: "0 * * * *"})
	kit.Deploy("p", engine.FunctionParams{ID: "fails"})
	kit.Advance(2 * time.Hour)
	kit.Drain()
	p := kit.Project("p")
	if _, err := p.Execute(t.Context(), engine.System, "fails", engine.ExecuteParams{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true}); err != nil {
			t.Fatal(err)
		}
	}
	m.ask(t)
	want := []string{
		"fnkit.build.duration{status=ready} 2",
		"fnkit.builds{status=ready} 2",
		"fnkit.execution.compute{} 0",
		"fnkit.execution.duration{status=completed trigger=schedule} 2",
		"fnkit.execution.duration{status=failed trigger=http} 1",
		"fnkit.executions{status=completed trigger=schedule} 2",
		"fnkit.executions{status=failed trigger=http} 1",
		"fnkit.instance.start{runtime=" + fnbox.RuntimeID + "} 2",
		"fnkit.instances{} 2",
		"fnkit.log.followers{} 0",
		"fnkit.queue.claims{queue=builds} 2",
		"fnkit.queue.claims{queue=runs} 2",
		"fnkit.queue.depth{queue=builds} 0",
		"fnkit.queue.depth{queue=runs} 3",
		"fnkit.schedule.drift{} 2",
	}
	if got := m.all(); !slices.Equal(got, want) {
		t.Errorf("measured\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	kit.Advance(3 * day)
	kit.Drain()
	if got := m.all(); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "fnkit.retention.removed{kind=executions} ") }) {
		t.Errorf("measured\n%s", strings.Join(got, "\n"))
	}
	if err := kit.Stop(t.Context()); err != nil || m.asked != nil {
		t.Errorf("the gauges are read after Stop, %v", err)
	}
}

// TestMetricsOfFunctions only if they are asked for.
func TestMetricsOfFunctions(t *testing.T) {
	t.Parallel()
	m := &measures{sums: map[string]float64{}}
	kit := enginetest.New(t, fnbox.Funcs{"f": ok}, func(c *engine.Config) { c.Meter, c.MeterFunctions = m, true })
	kit.Deploy("p", engine.FunctionParams{ID: "f"})
	if _, err := kit.Project("p").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
		t.Fatal(err)
	}
	if got := m.all(); !slices.Contains(got, "fnkit.executions{faas.name=f fnkit.project=p status=completed trigger=http} 1") {
		t.Errorf("measured\n%s", strings.Join(got, "\n"))
	}
}

// spans are a tracer that keeps what ended.
type spans struct {
	traceembedded.TracerProvider
	tracer
	mu    sync.Mutex
	ended []*ran
}

// tracer has another name than the method that returns it.
type tracer struct{ tracenoop.Tracer }

type ran struct {
	tracenoop.Span
	all    *spans
	name   string
	parent trace.SpanContext
	attrs  []attribute.KeyValue
	failed bool
}

func (s *spans) Tracer(string, ...trace.TracerOption) trace.Tracer { return s }

func (s *spans) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(o...)
	return ctx, &ran{all: s, name: name, parent: trace.SpanContextFromContext(ctx), attrs: cfg.Attributes()}
}

func (s *ran) SetStatus(c codes.Code, _ string) { s.failed = c == codes.Error }

func (s *ran) End(...trace.SpanEndOption) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.ended = append(s.all.ended, s)
}

func TestTraces(t *testing.T) {
	t.Parallel()
	s := &spans{}
	kit := enginetest.New(t, fnbox.Funcs{
		"f": ok, "fails": func(context.Context, *fnbox.Context) error { return context.Canceled },
	}, func(c *engine.Config) { c.Tracer = s })
	kit.Deploy("p", engine.FunctionParams{ID: "f"})
	kit.Deploy("p", engine.FunctionParams{ID: "fails"})
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	var ids []string
	for i, function := range []string{"f", "f", "fails"} {
		x, err := kit.Project("p").Execute(trace.ContextWithSpanContext(t.Context(), caller), engine.System, function, engine.ExecuteParams{Async: i == 1})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, x.ID)
		kit.Drain()
	}
	if len(s.ended) != 3 {
		t.Fatalf("%d spans", len(s.ended))
	}
	for i, span := range s.ended {
		if span.name != "fnkit.execution" || span.failed != (i == 2) || span.parent.Equal(caller) != (i != 1) {
			t.Errorf("span %d: %+v", i, span)
		}
		if !slices.Contains(span.attrs, attribute.String("faas.invocation_id", ids[i])) {
			t.Errorf("span %d: %v", i, span.attrs)
		}
	}
}

// BenchmarkObserved runs a function without meter and tracer, and with those
// that do nothing.
func BenchmarkObserved(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*engine.Config)
	}{
		{"none", func(*engine.Config) {}},
		{"meter", func(c *engine.Config) { c.Meter = metricnoop.NewMeterProvider() }},
		{"tracer", func(c *engine.Config) { c.Tracer = tracenoop.NewTracerProvider() }},
	} {
		b.Run(c.name, func(b *testing.B) {
			kit := enginetest.New(b, fnbox.Funcs{"f": ok}, c.change)
			kit.Deploy("p", engine.FunctionParams{ID: "f"})
			p := kit.Project("p")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Execute(b.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
