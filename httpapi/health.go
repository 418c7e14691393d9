package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/fnkit/fnkit/engine"
)

// LiveHandler answers whether a process should go on: 200 and {"status":"ok"}, or
// 503 with a "reason" in words if a loop of the engine is stuck, see
// engine.Engine.Alive. Mount it where an orchestrator asks, such as "/healthz".
func LiveHandler(eng *engine.Engine) http.Handler {
	return healthHandler(eng, func(*http.Request) error { return eng.Alive() })
}

// ReadyHandler answers whether a process can serve: 200 and {"status":"ok"}, or
// 503 with a "reason" in words that names the part which cannot, see
// engine.Engine.Ready; what is wrong with it goes to the engine's log. Mount it
// where an orchestrator or a load balancer asks, such as "/readyz".
func ReadyHandler(eng *engine.Engine) http.Handler {
	return healthHandler(eng, func(r *http.Request) error { return eng.Ready(r.Context()) })
}

func healthHandler(eng *engine.Engine, ask func(*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		err := ask(r)
		if err == nil {
			writeJSON(w, r, http.StatusOK, object{{"status", "ok"}})
			return
		}
		reason, cause := "The engine does not work.", err
		if e := engineError(err); e != nil {
			reason = e.Message
			if e.Unwrap() != nil {
				cause = e.Unwrap()
			}
		}
		eng.Config().Logger.LogAttrs(r.Context(), slog.LevelWarn, "not healthy", slog.String("path", r.URL.Path), slog.String("reason", reason), slog.Any("error", cause))
		writeJSON(w, r, http.StatusServiceUnavailable, object{{"status", "failing"}, {"reason", reason}})
	})
}
