package fnbox

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/fnkit/fnkit/sandbox"
)

// Request is the request of a call.
type Request struct {
	Method      string
	Scheme      string // "http" or "https"
	Host        string // without the port
	Port        int
	Path        string // without the query, not decoded
	QueryString string // without the "?"
	// Query are the parameters, not decoded; of several the last counts.
	Query map[string]string
	// Headers have lower-case names; several of one name are joined.
	Headers map[string]string
	Body    []byte
}

// Text returns the body as text.
func (r *Request) Text() string { return string(r.Body) }

// JSON decodes the body into v.
func (r *Request) JSON(v any) error { return json.Unmarshal(r.Body, v) }

// URL returns the whole address, without the port if it is the scheme's own.
func (r *Request) URL() string {
	u := r.Scheme + "://" + r.Host
	if r.Port != defaultPort(r.Scheme) {
		u += ":" + strconv.Itoa(r.Port)
	}
	u += r.Path
	if r.QueryString != "" {
		u += "?" + r.QueryString
	}
	return u
}

func newRequest(r sandbox.Request, body []byte) Request {
	req := Request{Method: r.Method, Headers: requestHeaders(r.Headers), Body: body}
	req.Path, req.QueryString, _ = strings.Cut(r.Path, "?")
	req.Query = parseQuery(req.QueryString)
	req.Scheme = req.Headers["x-forwarded-proto"]
	if req.Scheme == "" {
		req.Scheme = "http"
	}
	req.Host, req.Port = splitHost(req.Headers["host"], defaultPort(req.Scheme))
	return req
}

func requestHeaders(fields []sandbox.Header) map[string]string {
	headers := make(map[string]string, len(fields))
	for _, h := range fields {
		if strings.HasPrefix(h.Name, "x-open-runtimes-") {
			continue
		}
		value, again := headers[h.Name]
		switch {
		case !again:
			headers[h.Name] = h.Value
		case h.Name == "cookie":
			headers[h.Name] = value + "; " + h.Value
		default:
			headers[h.Name] = value + ", " + h.Value
		}
	}
	return headers
}

func parseQuery(text string) map[string]string {
	query := map[string]string{}
	for part := range strings.SplitSeq(text, "&") {
		if key, value, _ := strings.Cut(part, "="); key != "" {
			query[key] = value
		}
	}
	return query
}

// splitHost takes the port off a host; an address in brackets keeps its colons.
func splitHost(host string, port int) (string, int) {
	at := strings.LastIndexByte(host, ':')
	if at < 0 {
		return host, port
	}
	n, err := strconv.Atoi(host[at+1:])
	if err != nil {
		return host, port
	}
	return host[:at], n
}

func defaultPort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}
