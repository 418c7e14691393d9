package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/fnkit/fnkit/engine"
)

// Keys is a ready-made identity for small servers and tests: API keys and
// users that are known beforehand. Its Identify is what [Options] wants. It
// must not be changed once in use. No two keys, and no two users, of one
// project may have the same secret or token: the later one would count.
type Keys struct {
	// Engine verifies the keys handed to functions, which call back with them.
	// Nil: such keys are refused.
	Engine *engine.Engine
	Keys   []Key
	Users  []User
}

// Key is an API key.
type Key struct {
	Project string // where it is valid. Default: in every project
	Secret  string // as sent in X-Appwrite-Key; it must not begin with "dynamic_"
	// Scopes are what it may do. Default: all that the engine asks for.
	Scopes []string
}

// User is a user and the one token that proves who it is.
type User struct {
	Project  string // where the user is known. Default: in every project
	ID       string
	Token    string
	Email    string // named in messages. Default: "User"
	Verified bool   // the email is verified
	// Roles are what the user has besides those of every user, such as
	// "team:T" or "team:T/owner"; Labels give the roles "label:<label>".
	Roles  []string
	Labels []string
}

// Identify says who sent a request. The project is named by X-Appwrite-Project
// or the query parameter "project". A key comes in X-Appwrite-Key. A user's
// token comes in the cookie a_session_<project>, in X-Appwrite-Session or in
// X-Fallback-Cookies, in this order, and is ignored if it is wrong; or in
// X-Appwrite-JWT, which then must be right. Who sends neither is a guest. The
// error is an *engine.Error.
func (k *Keys) Identify(r *http.Request) (engine.Caller, error) {
	c := engine.Caller{Project: projectOf(r)}
	user, known := k.userBySession(r, c.Project)
	if token := r.Header.Get("X-Appwrite-JWT"); token != "" {
		if user, known = k.user(c.Project, token, ""); !known {
			return c, wireError(TypeJWT)
		}
	}
	secret := r.Header.Get("X-Appwrite-Key")
	switch {
	case secret != "" && known:
		return c, wireError(TypeKeyAndSession)
	case secret != "":
		actor, err := k.key(c.Project, secret)
		if actor.Label == "" {
			actor.Label = "app." + c.Project + "@service." + hostname(r.Host)
		}
		c.Actor = actor
		return c, err
	case known:
		c.Actor = user.actor()
	}
	return c, nil
}

// consoleProject is what clients send that have no project yet.
const consoleProject = "console"

func projectOf(r *http.Request) string {
	p := r.Header.Get("X-Appwrite-Project")
	if p == "" {
		p = r.URL.Query().Get("project")
	}
	if p == consoleProject {
		return ""
	}
	return p
}

// key returns the actor of an API key.
func (k *Keys) key(project, secret string) (engine.Actor, error) {
	refused := engine.Errorf(engine.TypeUnauthorized, "")
	if project == "" {
		return engine.Actor{}, refused
	}
	if strings.HasPrefix(secret, "dynamic_") && k.Engine != nil {
		actor, err := k.Engine.ActorForKey(project, secret)
		if err != nil && engineError(err) == nil {
			err = refused
		}
		return actor, err
	}
	var found *Key
	for i := range k.Keys {
		if sameSecret(k.Keys[i].Secret, secret) && (k.Keys[i].Project == "" || k.Keys[i].Project == project) {
			found = &k.Keys[i]
		}
	}
	if found == nil {
		return engine.Actor{}, refused
	}
	scopes := found.Scopes
	if len(scopes) == 0 {
		scopes = []string{engine.ScopeFunctionsRead, engine.ScopeFunctionsWrite, engine.ScopeExecutionRead, engine.ScopeExecutionWrite}
	}
	return engine.Actor{Kind: engine.ActorKey, Scopes: scopes}, nil
}

// sameSecret compares in a time that tells nothing about either; an empty
// secret is the same as none.
func sameSecret(a, b string) bool {
	ha, hb := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(ha[:], hb[:]) == 1 && a != ""
}

// user returns the user of a token, and of an id unless that is empty.
func (k *Keys) user(project, token, id string) (User, bool) {
	found := -1
	for i, u := range k.Users {
		if sameSecret(u.Token, token) && (u.Project == "" || u.Project == project) && (id == "" || u.ID == id) {
			found = i
		}
	}
	if found < 0 || project == "" {
		return User{}, false
	}
	return k.Users[found], true
}

func (k *Keys) userBySession(r *http.Request, project string) (User, bool) {
	session := sessionOf(r, project)
	if session == "" {
		return User{}, false
	}
	id, secret := decodeSession(session)
	return k.user(project, secret, id)
}

// sessionOf returns the session a request names first.
func sessionOf(r *http.Request, project string) string {
	name := "a_session_" + project
	for _, cookie := range []string{name, name + "_legacy"} {
		if c, err := r.Cookie(cookie); err == nil && c.Value != "" {
			return c.Value
		}
	}
	if s := r.Header.Get("X-Appwrite-Session"); s != "" {
		return s
	}
	var fallback map[string]string
	if json.Unmarshal([]byte(r.Header.Get("X-Fallback-Cookies")), &fallback) != nil {
		return ""
	}
	return fallback[name]
}

// decodeSession reads what a session cookie holds, the base64 of a JSON object
// with the user's id and secret; anything else is the secret itself.
func decodeSession(session string) (id, secret string) {
	text := session
	if plain, err := url.QueryUnescape(text); err == nil && strings.Contains(text, "%") {
		text = plain
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return "", session
	}
	var held struct{ ID, Secret string }
	if json.Unmarshal(raw, &held) != nil || held.Secret == "" {
		return "", session
	}
	return held.ID, held.Secret
}

func (u User) actor() engine.Actor {
	roles := append([]string(nil), u.Roles...)
	for _, l := range u.Labels {
		roles = append(roles, "label:"+l)
	}
	return engine.Actor{Kind: engine.ActorUser, UserID: u.ID, Verified: u.Verified, Roles: roles, Label: u.Email}
}
