package httpapi

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	allowedMethods = "GET, POST, PUT, PATCH, DELETE"
	allowedHeaders = "Origin, Cookie, Set-Cookie, X-Requested-With, Content-Type, Access-Control-Allow-Origin, Access-Control-Request-Headers, Accept, " +
		"X-Appwrite-Project, X-Appwrite-Key, X-Appwrite-Dev-Key, X-Appwrite-Locale, X-Appwrite-Mode, X-Appwrite-JWT, X-Appwrite-Response-Format, X-Appwrite-Timeout, " +
		"X-Appwrite-ID, X-Appwrite-Timestamp, X-Appwrite-Session, X-Fallback-Cookies, X-SDK-Version, X-SDK-Name, X-SDK-Language, X-SDK-Platform, X-SDK-GraphQL, " +
		"Content-Range, Range, Cache-Control, Expires, Pragma, Idempotency-Key"
	exposedHeaders = "X-Appwrite-Session, X-Fallback-Cookies, Idempotency-Replayed"
)

// preflight answers what a browser asks before a request of another origin.
// Every origin is told yes; the request itself is checked.
func (a *API) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "Appwrite")
	h.Set("Access-Control-Allow-Methods", allowedMethods)
	h.Set("Access-Control-Allow-Headers", allowedHeaders)
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Vary", "Origin")
	}
	w.WriteHeader(http.StatusNoContent)
}

// writeHeaders sets the headers that every answer has.
func (a *API) writeHeaders(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "Appwrite")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Debug-Fallback", "false")
	origin := r.Header.Get("Origin")
	if origin == "" || !a.trusted(origin, r) {
		origin = "http://localhost"
		if r.TLS != nil {
			origin = "https://localhost"
		}
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Allow-Methods", allowedMethods)
	h.Set("Access-Control-Allow-Headers", allowedHeaders)
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	h.Add("Vary", "Origin")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=10886400")
	}
}

// checkOrigin refuses a write that a page of an unknown host sends, unless it
// has a key, which browsers do not add by themselves.
func (a *API) checkOrigin(r *http.Request) error {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return nil
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		origin = r.Header.Get("Referer")
	}
	if origin == "" || r.Header.Get("X-Appwrite-Key") != "" || a.trusted(origin, r) {
		return nil
	}
	return wireError(TypeUnknownOrigin)
}

// trusted reports whether the page at an address may call the API.
func (a *API) trusted(address string, r *http.Request) bool {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return false
	}
	host := strings.ToLower(u.Hostname())
	if host == "localhost" || host == strings.ToLower(hostname(r.Host)) {
		return true
	}
	for _, allowed := range a.opt.AllowedOrigins {
		allowed = strings.ToLower(allowed)
		suffix, wildcard := strings.CutPrefix(allowed, "*")
		if host == allowed || wildcard && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// hostname returns a host without its port, and an IPv6 address without brackets.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// remoteIP returns the address of the other end of the connection.
func remoteIP(r *http.Request) string { return hostname(r.RemoteAddr) }
