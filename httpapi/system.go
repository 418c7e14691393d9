package httpapi

import (
	_ "embed"
	"net/http"
	"strconv"

	"github.com/fnkit/fnkit/engine"
)

// health says whether the engine can serve.
func (a *API) health(c *call) error {
	if err := a.eng.Ready(c.r.Context()); err != nil {
		a.logError(c.r, err)
		return engine.Errorf(engine.TypeUnavailable, "")
	}
	return c.json(http.StatusOK, object{{"name", "functions"}, {"status", "pass"}, {"ping", 0}})
}

func (a *API) version(c *call) error {
	return c.json(http.StatusOK, object{{"version", a.opt.Version}})
}

// listRules answers clients that ask for the domains of a function: there are none.
func (a *API) listRules(c *call) error { return c.list("rules", 0, nil) }

//go:embed openapi.json
var openAPIDocument []byte

// openAPI is the description of this API.
func (a *API) openAPI(c *call) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(openAPIDocument)))
	_, err := c.w.Write(openAPIDocument)
	return err
}
