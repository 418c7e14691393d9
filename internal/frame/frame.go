package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of the channel.
const (
	MaxFrame   = 1 << 20   // of a frame, without its length field
	MaxHead    = 65535     // of a JSON head
	MaxData    = 64 << 10  // of the body bytes in one frame
	WindowSize = 256 << 10 // DATA bytes of a call that may be under way in one direction
)

// Type says what a frame carries.
type Type byte

// The types of frames; the package comment tells what each is.
const (
	CALL Type = iota + 1
	HEAD
	DATA
	WINDOW
	RESET
	LOG
	READY
	BIND
	BOUND
)

// End is the flag that says that the sender has finished its direction of the call.
const End byte = 1

// ErrProtocol is wrapped by the errors that say what was malformed.
var ErrProtocol = errors.New("protocol error")

// headerSize is what precedes a payload: length, id, type, flags.
const headerSize = 10

// Frame is one frame. Payload is valid until the next one is read.
type Frame struct {
	ID      uint32
	Type    Type
	Flags   byte
	Payload []byte
}

// Append appends a frame whose payload is a followed by b.
func Append(dst []byte, f Frame, b []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(headerSize-4+len(f.Payload)+len(b)))
	dst = binary.LittleEndian.AppendUint32(dst, f.ID)
	dst = append(dst, byte(f.Type), f.Flags)
	dst = append(dst, f.Payload...)
	return append(dst, b...)
}

// AppendHead appends what a payload of CALL or HEAD begins with: head with its
// length before it.
func AppendHead(dst, head []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(head)))
	return append(dst, head...)
}

// SplitHead divides a payload of CALL or HEAD into head and body.
func SplitHead(p []byte) (head, body []byte, err error) {
	if len(p) < 2 {
		return nil, nil, malformed("head of %d bytes", len(p))
	}
	n := int(binary.LittleEndian.Uint16(p))
	if len(p) < 2+n {
		return nil, nil, malformed("head longer than its frame")
	}
	return p[2 : 2+n], p[2+n:], nil
}

// Reader reads frames. Its memory is bounded by MaxFrame.
type Reader struct {
	r   *bufio.Reader
	big []byte // for frames that do not fit the buffer
	due int    // bytes of the last frame still in the buffer
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 32<<10)}
}

// Next returns the next frame: io.EOF at the end between two frames,
// io.ErrUnexpectedEOF inside one, ErrProtocol for a bad length.
func (r *Reader) Next() (Frame, error) {
	r.r.Discard(r.due)
	r.due = 0
	h, err := r.r.Peek(headerSize)
	if err != nil {
		if len(h) > 0 {
			err = unexpected(err)
		}
		return Frame{}, err
	}
	n := binary.LittleEndian.Uint32(h)
	if n < headerSize-4 || n > MaxFrame {
		return Frame{}, malformed("frame length %d", n)
	}
	f := Frame{ID: binary.LittleEndian.Uint32(h[4:]), Type: Type(h[8]), Flags: h[9]}
	r.r.Discard(headerSize)
	f.Payload, err = r.payload(int(n) - (headerSize - 4))
	return f, err
}

func (r *Reader) payload(n int) ([]byte, error) {
	if n <= r.r.Size() {
		p, err := r.r.Peek(n)
		if err != nil {
			return nil, unexpected(err)
		}
		r.due = n
		return p, nil
	}
	if cap(r.big) < n {
		r.big = make([]byte, n)
	}
	p := r.big[:n]
	if n > 2*MaxData {
		r.big = nil // rare: not worth keeping
	}
	_, err := io.ReadFull(r.r, p)
	return p, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}
