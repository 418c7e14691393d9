package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// Options configure an [API].
type Options struct {
	// Identify says who sent a request and in which project: required. It is
	// not asked on routes open to everyone. An error that is an *engine.Error is
	// answered as it is, any other as a 500.
	Identify func(*http.Request) (engine.Caller, error)

	// Version is what errors and /v1/health/version report. Default: the
	// engine's Identity.Version.
	Version string
	// AllowedOrigins are the host names of the web pages that may call the API:
	// "app.example.com", "*.example.com" or "*". The server's own host and
	// localhost always may. Default: those two only.
	AllowedOrigins []string
	// TrustProxy takes the client's address from the first entry of
	// X-Forwarded-For, if it is one. Set it only behind a proxy that overwrites the header.
	TrustProxy bool
	// CreateLimit is how many functions may be created per project and day, by
	// requests to this handler. Default: no limit.
	CreateLimit int
	// TempDir holds the parts of uploads that are too big for memory while they
	// arrive. Default: the system's.
	TempDir string

	// Logger gets internal errors, each with the id its caller was told.
	// Default: the engine's.
	Logger *slog.Logger
	// OnResponse is called after each request was answered, or its answer broke
	// off, from the request's goroutine. Default: none.
	OnResponse func(*http.Request, Outcome)
}

// Outcome says how a request was answered.
type Outcome struct {
	Route    string // operation, such as "functionsCreate"; empty: no such route
	Project  string // empty: not identified
	Status   int
	Bytes    int64 // of the body
	Duration time.Duration
	Err      error // what was answered as an error; nil: none
}

// API is the handler of the API. It is made by [New] and may be used by any
// number of goroutines.
type API struct {
	eng     *engine.Engine
	cfg     engine.Config // of eng
	opt     Options
	mux     *http.ServeMux
	created *rateLimit

	streams    context.Context // of answers that follow logs
	endStreams context.CancelFunc
}

// New returns the API of an engine. Mount it at "/v1/", without stripping the
// prefix. It fails if Identify is missing.
func New(eng *engine.Engine, o Options) (*API, error) {
	if eng == nil {
		return nil, errors.New("httpapi: the engine is missing")
	}
	if o.Identify == nil {
		return nil, errors.New("httpapi: Options.Identify is missing")
	}
	a := &API{eng: eng, cfg: eng.Config(), opt: o, mux: http.NewServeMux()}
	a.streams, a.endStreams = context.WithCancel(context.Background())
	a.opt.Version = cmp.Or(o.Version, a.cfg.Identity.Version)
	if o.Logger == nil {
		a.opt.Logger = a.cfg.Logger
	}
	if o.CreateLimit > 0 {
		a.created = newRateLimit(o.CreateLimit, 24*time.Hour)
	}
	for _, rt := range a.routes() {
		a.mux.Handle(rt.method+" "+rt.pattern, a.serve(rt))
	}
	a.mux.Handle("/", a.serve(route{handle: a.noRoute}))
	return a, nil
}

// EndStreams ends the answers that follow logs, now and from now on; their
// clients may go on elsewhere. http.Server.Shutdown waits for all answers, and
// for these it could for long: pass EndStreams to http.Server.RegisterOnShutdown.
func (a *API) EndStreams() { a.endStreams() }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		c, start := &call{r: r}, a.cfg.Clock.Now()
		rec := &recorder{ResponseWriter: w}
		a.preflight(rec, r)
		a.report(c, rec, start, nil)
		return
	}
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		a.serve(route{handle: a.noRoute}).ServeHTTP(w, r) // rather than a redirect to what it might mean
		return
	}
	a.mux.ServeHTTP(w, r)
}

func (a *API) noRoute(*call) error { return wireError(TypeRoute) }

// serve is what surrounds every handler: headers, the gates before it, the
// error after it, and the report.
func (a *API) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		c := &call{api: a, w: rec, r: r, route: rt, format: parseVersion(r.Header.Get("X-Appwrite-Response-Format"))}
		start := a.cfg.Clock.Now()
		a.writeHeaders(rec, r)
		err := a.run(c)
		if err != nil && rec.status != 0 {
			a.logError(r, err)
			a.report(c, rec, start, err)
			panic(http.ErrAbortHandler) // too late for an error: let the client see the break
		}
		if err != nil {
			a.writeError(rec, r, err)
		}
		a.report(c, rec, start, err)
	})
}

// report tells the host how a request was answered.
func (a *API) report(c *call, rec *recorder, start time.Time, err error) {
	if a.opt.OnResponse == nil {
		return
	}
	a.opt.OnResponse(c.r, Outcome{
		Route: c.route.operation, Project: c.caller.Project, Status: rec.status, Bytes: rec.bytes,
		Duration: a.cfg.Clock.Since(start), Err: err,
	})
}

// run passes the gates in their order and calls the handler.
func (a *API) run(c *call) (err error) {
	defer func() {
		switch p := recover(); {
		case p == http.ErrAbortHandler:
			panic(p)
		case p != nil:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if v := c.format; v.after(parseVersion(a.opt.Version)) {
		c.w.Header().Set("X-Appwrite-Warning", fmt.Sprintf("The current SDK is built for Appwrite %s. However, the current Appwrite server version is %s.", v, a.opt.Version))
	}
	if err := a.checkOrigin(c.r); err != nil {
		return err
	}
	if c.route.scope != "" {
		if err := c.authorize(); err != nil {
			return err
		}
	}
	if err := c.readParams(); err != nil {
		return err
	}
	return c.route.handle(c)
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// clientIP returns the address of who sent the request.
func (a *API) clientIP(r *http.Request) string {
	if a.opt.TrustProxy {
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		if addr, err := netip.ParseAddr(hostname(strings.TrimSpace(first))); err == nil {
			return addr.WithZone("").String()
		}
	}
	return remoteIP(r)
}
