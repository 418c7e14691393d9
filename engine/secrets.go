package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fnkit/fnkit/internal/seal"
)

// Keys is a ring of keys: the first seals and signs, all of them open and
// verify, so a key is rotated by putting a new one in front.
type Keys []key

type key struct {
	id     string
	secret []byte
}

// Key returns a ring of one key. id names it for ever, in at most 32 bytes;
// secret is at least 16 bytes. A ring of several is
// append(engine.Key("k2", new), engine.Key("k1", old)...).
func Key(id string, secret []byte) Keys { return Keys{{id, secret}} }

// secrets seals what must not be readable in a store, and signs the keys that
// functions call back with.
type secrets struct {
	ring    seal.Ring
	signing map[string][]byte // by key id
	first   string
	now     func() time.Time
}

func newSecrets(keys Keys, now func() time.Time) (*secrets, error) {
	s := &secrets{signing: map[string][]byte{}, first: keys[0].id, now: now}
	for _, k := range keys {
		if err := s.ring.Add(k.id, k.secret); err != nil {
			return nil, err
		}
		sign, err := seal.Derive(k.secret, "fnkit sign")
		if err != nil {
			return nil, err
		}
		s.signing[k.id] = sign
	}
	return s, nil
}

// Identities of sealed records: a value moved to another record does not open.

func variableIdentity(project, function, id string) string {
	return "variable/" + project + "/" + function + "/" + id
}

func payloadIdentity(project, execution string) string { return "payload/" + project + "/" + execution }

// payload is what a queued execution needs to run, beside its row.
type payload struct {
	Headers []Header `json:",omitempty"`
	Body    []byte   `json:"-"`
	Actor   Actor    // who caused it, for the token of that user
	IP      string   `json:",omitempty"`
}

// sealPayload seals the length of a payload without its body, it, and the body:
// as JSON the body would be longer by a third, and most of what opening costs.
func (s *secrets) sealPayload(x Execution, p payload) ([]byte, error) {
	head, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, 0, binary.MaxVarintLen64+len(head)+len(p.Body))
	plain = append(append(binary.AppendUvarint(plain, uint64(len(head))), head...), p.Body...)
	return s.ring.Seal(plain, payloadIdentity(x.Project, x.ID)), nil
}

func (s *secrets) openPayload(x Execution) (p payload, err error) {
	plain, err := s.ring.Open(x.Payload, payloadIdentity(x.Project, x.ID))
	if err != nil {
		return p, fmt.Errorf("open payload: %w", err)
	}
	size, n := binary.Uvarint(plain)
	if n <= 0 || uint64(len(plain)-n) < size {
		return p, errors.New("open payload: not what was sealed")
	}
	err = json.Unmarshal(plain[n:n+int(size)], &p)
	p.Body = plain[n+int(size):]
	return p, err
}

// reply is the answer that a synchronous execution gave, for those who ask again.
type reply struct {
	Headers []Header
	Body    []byte
	Limited bool // there was none in time
}

func replyIdentity(x Execution) string { return "reply/" + x.Project + "/" + x.ID }

func (s *secrets) sealReply(x Execution, r reply) ([]byte, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return s.ring.Seal(plain, replyIdentity(x)), nil
}

func (s *secrets) openReply(x Execution, sealed []byte) (r reply, err error) {
	plain, err := s.ring.Open(sealed, replyIdentity(x))
	if err != nil {
		return r, fmt.Errorf("open reply: %w", err)
	}
	return r, json.Unmarshal(plain, &r)
}

// dynamicPrefix marks a key that was minted for one execution or build.
const dynamicPrefix = "dynamic_"

// keySlack is how much longer than its execution a key is valid.
const keySlack = time.Minute

type keyClaims struct {
	jwt.RegisteredClaims
	Project  string   `json:"projectId"`
	Function string   `json:"functionId,omitempty"`
	Scopes   []string `json:"scopes"`
	Depth    int      `json:"depth,omitempty"` // of whoever has the key
}

// mint returns a key for a function to call back with, valid for ttl and a
// little longer.
func (s *secrets) mint(f Function, depth int, ttl time.Duration) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, keyClaims{
		RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(s.now().Add(ttl + keySlack))},
		Project:          f.Project, Function: f.ID, Scopes: f.Scopes, Depth: depth,
	})
	t.Header["kid"] = s.first
	signed, err := t.SignedString(s.signing[s.first])
	return dynamicPrefix + signed, err
}

// minted is a key, the second it was made in, and the depth in it.
type minted struct {
	at    int64
	depth int
	key   string
}

// executionKey returns the key for an execution that an actor causes now. Ends
// are whole seconds, so executions that begin in one have the same, and it is
// signed once.
func (s *secrets) executionKey(k *known, by Actor, ttl time.Duration) (string, error) {
	at, depth := s.now().Unix(), by.Depth+1
	if m := k.minted.Load(); m != nil && m.at == at && m.depth == depth {
		return m.key, nil
	}
	key, err := s.mint(k.fn, depth, ttl)
	if err == nil {
		k.minted.Store(&minted{at, depth, key})
	}
	return key, err
}

// ActorForKey verifies a key that was minted for an execution or a build
// ("dynamic_…") of the project, and returns its actor. The error is
// user_unauthorized.
func (e *Engine) ActorForKey(project, key string) (Actor, error) {
	var claims keyClaims
	token, ok := strings.CutPrefix(key, dynamicPrefix)
	_, err := jwt.ParseWithClaims(token, &claims, e.secrets.verifier,
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithTimeFunc(e.secrets.now), jwt.WithExpirationRequired())
	if !ok || err != nil || claims.Project != project {
		return Actor{}, Errorf(TypeUnauthorized, "The key is not valid for this project, or has expired.")
	}
	return Actor{Kind: ActorKey, Scopes: claims.Scopes, Depth: claims.Depth, Label: "function " + claims.Function}, nil
}

func (s *secrets) verifier(t *jwt.Token) (any, error) {
	id, _ := t.Header["kid"].(string)
	if k, ok := s.signing[id]; ok {
		return k, nil
	}
	return nil, errors.New("unknown key id")
}
