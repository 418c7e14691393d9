package engine

// Keys is a ring of keys: the first seals and signs, all of them open and
// verify, so a key is rotated by putting a new one in front.
type Keys []key

type key struct {
	id     string
	secret []byte
}

// Key returns a ring of one key. id names it for ever, in at most 32 letters,
// digits, "-" or "_"; secret is at least 16 bytes. A ring of several is
// append(engine.Key("k2", new), engine.Key("k1", old)...).
func Key(id string, secret []byte) Keys { return Keys{{id, secret}} }
