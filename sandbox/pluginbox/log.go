package pluginbox

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Keys of a log record on a plugin's standard error: those of hclog, so that plugins
// may use either.
const (
	keyLevel   = "@level"
	keyMessage = "@message"
	keyTime    = "@timestamp"
	timeLayout = "2006-01-02T15:04:05.000000Z07:00"
)

// Logger returns what a plugin is to log with: records from level on appear in the
// host's log, with their attributes. Call it before Serve.
func Logger(level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: rename}))
}

func rename(groups []string, a slog.Attr) slog.Attr {
	switch {
	case len(groups) > 0:
	case a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime:
		return slog.String(keyTime, a.Value.Time().Format(timeLayout))
	case a.Key == slog.LevelKey:
		return slog.String(keyLevel, strings.ToLower(a.Value.String()))
	case a.Key == slog.MessageKey:
		a.Key = keyMessage
	}
	return a
}

const (
	maxLine = 64 << 10 // of what a plugin prints; the rest of a longer one is dropped
	maxTail = 2 << 10  // of it that is kept to say how the plugin ended
)

// output turns what a plugin prints into log records. It is an io.Writer.
type output struct {
	log    *slog.Logger
	stream string

	mu       sync.Mutex
	line     []byte
	panicked bool
	tail     []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		o.line = append(o.line, line[:min(len(line), maxLine-len(o.line))]...)
		if whole {
			o.print(strings.TrimSuffix(string(o.line), "\r"))
			o.line = o.line[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (o *output) print(line string) {
	ctx := context.Background()
	if r, ok := parseRecord(line); ok {
		if o.log.Enabled(ctx, r.Level) {
			o.log.Handler().Handle(ctx, r)
		}
		return
	}
	o.tail = append(append(o.tail, line...), '\n')
	o.tail = o.tail[max(0, len(o.tail)-maxTail):]
	level := slog.LevelInfo
	if o.panicked = o.panicked || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: "); o.panicked {
		level = slog.LevelError
	}
	o.log.Log(ctx, level, line, "stream", o.stream)
}

// last returns the end of what was printed and is not a log record.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(o.tail) + string(o.line))
}

// parseRecord reads a record of Logger's or hclog's.
func parseRecord(line string) (slog.Record, bool) {
	var fields map[string]any
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if !strings.HasPrefix(line, "{") || d.Decode(&fields) != nil {
		return slog.Record{}, false
	}
	message, ok := fields[keyMessage].(string)
	level, leveled := fields[keyLevel].(string)
	if !ok || !leveled {
		return slog.Record{}, false
	}
	at := time.Now()
	if text, ok := fields[keyTime].(string); ok {
		if t, err := time.Parse(timeLayout, text); err == nil {
			at = t
		}
	}
	r := slog.NewRecord(at, parseLevel(level), message, 0)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasPrefix(key, "@") {
			r.AddAttrs(slog.Any(key, fields[key]))
		}
	}
	return r, true
}

func parseLevel(text string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return slog.LevelDebug // hclog's trace
	}
	return level
}

// bridge is the hclog.Logger that go-plugin asks for, on a slog.Logger.
type bridge struct {
	log  *slog.Logger
	name string
	with []any
}

var _ hclog.Logger = bridge{}

func newBridge(log *slog.Logger) hclog.Logger { return bridge{log: log} }

func (b bridge) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Trace, hclog.NoLevel, hclog.Off:
		return
	case hclog.Info:
		to = slog.LevelInfo
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	b.log.Log(context.Background(), to, msg, append(slices.Clone(b.with), args...)...)
}

func (b bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b bridge) enabled(level slog.Level) bool { return b.log.Enabled(context.Background(), level) }

func (b bridge) IsTrace() bool { return false }
func (b bridge) IsDebug() bool { return b.enabled(slog.LevelDebug) }
func (b bridge) IsInfo() bool  { return b.enabled(slog.LevelInfo) }
func (b bridge) IsWarn() bool  { return b.enabled(slog.LevelWarn) }
func (b bridge) IsError() bool { return b.enabled(slog.LevelError) }

func (b bridge) ImpliedArgs() []any { return b.with }
func (b bridge) Name() string       { return b.name }

func (b bridge) With(args ...any) hclog.Logger {
	b.with = append(slices.Clone(b.with), args...)
	return b
}

func (b bridge) Named(name string) hclog.Logger {
	if b.name != "" {
		name = b.name + "." + name
	}
	return b.ResetNamed(name)
}

func (b bridge) ResetNamed(name string) hclog.Logger {
	b.name = name
	return b
}

func (b bridge) SetLevel(hclog.Level) {}

// GetLevel says Off, which keeps go-plugin from reading what a plugin prints:
// output does that, and takes nothing amiss.
func (b bridge) GetLevel() hclog.Level { return hclog.Off }

func (b bridge) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b.StandardWriter(opts), "", 0)
}

func (b bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return &output{log: b.log, stream: "log"}
}
