// Package seal encrypts small values with a ring of keys: AES-256-GCM, the id
// of the key in front, and the identity of the record as additional data, so
// that a sealed value moved to another record does not open.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrOpen: the value was not sealed by a key of the ring for this record, or
// was changed since.
var ErrOpen = errors.New("seal: cannot open")

// Ring seals with its first key and opens with any. It is safe for concurrent use.
type Ring struct{ keys []key }

type key struct {
	id   string
	aead cipher.AEAD
}

// Add appends a key, derived from a secret of any length.
func (r *Ring) Add(id string, secret []byte) error {
	if id == "" || len(id) > 32 {
		return fmt.Errorf("seal: key id %q is not 1 to 32 bytes long", id)
	}
	derived, err := Derive(secret, "fnkit seal")
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	r.keys = append(r.keys, key{id, aead})
	return nil
}

// Derive returns a 32-byte key for a purpose.
func Derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, purpose, 32)
}

// format is the first byte of every sealed value.
const format = 1

// Seal encrypts plain for the record named by identity.
func (r *Ring) Seal(plain []byte, identity string) []byte {
	k := r.keys[0]
	out := append([]byte{format, byte(len(k.id))}, k.id...)
	return k.aead.Seal(out, nil, plain, []byte(identity))
}

// Open decrypts what Seal made for the same identity, or returns ErrOpen.
func (r *Ring) Open(sealed []byte, identity string) ([]byte, error) {
	if len(sealed) < 2 || sealed[0] != format || len(sealed) < 2+int(sealed[1]) {
		return nil, ErrOpen
	}
	id, rest := string(sealed[2:2+sealed[1]]), sealed[2+sealed[1]:]
	for _, k := range r.keys {
		if k.id != id {
			continue
		}
		if plain, err := k.aead.Open(nil, nil, rest, []byte(identity)); err == nil {
			return plain, nil
		}
	}
	return nil, ErrOpen
}
