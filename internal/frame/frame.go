package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Type is the type of a frame.
type Type uint8

// The types of frames; the package comment says what they carry.
const (
	Call   Type = 1
	Head   Type = 2
	Data   Type = 3
	Window Type = 4
	Reset  Type = 5
	Log    Type = 6
	Ready  Type = 7
	Bind   Type = 8
	Bound  Type = 9
)

// End is the flag of the last frame of a direction of a call.
const End = 1

// Sizes of the protocol, in bytes.
const (
	MaxFrame = 1 << 20   // what length may say at most
	MaxData  = 64 << 10  // body bytes in one frame
	MaxHead  = 1<<16 - 1 // JSON head
	Credit   = 256 << 10 // window of a direction of a call
)

const (
	minFrame   = 6
	headerSize = 4 + minFrame
)

// ErrMalformed is wrapped by every error about what the other side sent.
var ErrMalformed = errors.New("malformed frame")

// Header is the fixed part of a frame.
type Header struct {
	ID    uint32
	Type  Type
	Flags uint8
	Size  int // length of the payload
}

// AppendHeader appends the fixed part of a frame to dst.
func AppendHeader(dst []byte, h Header) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(minFrame+h.Size))
	dst = binary.LittleEndian.AppendUint32(dst, h.ID)
	return append(dst, byte(h.Type), h.Flags)
}

// Append appends a frame to dst. Its Size is the payload's length.
func Append(dst []byte, h Header, payload []byte) []byte {
	h.Size = len(payload)
	return append(AppendHeader(dst, h), payload...)
}

// ReadHeader reads the fixed part of a frame; the payload follows in r. It
// returns io.EOF between frames, and io.ErrUnexpectedEOF inside one.
func ReadHeader(r *bufio.Reader) (Header, error) {
	b, err := r.Peek(headerSize)
	if err != nil {
		if errors.Is(err, io.EOF) && len(b) > 0 {
			return Header{}, io.ErrUnexpectedEOF
		}
		return Header{}, err
	}
	length := binary.LittleEndian.Uint32(b)
	if length < minFrame || length > MaxFrame {
		return Header{}, fmt.Errorf("%w: length %d", ErrMalformed, length)
	}
	h := Header{
		ID: binary.LittleEndian.Uint32(b[4:]), Type: Type(b[8]), Flags: b[9],
		Size: int(length) - minFrame,
	}
	_, err = r.Discard(headerSize)
	return h, err
}

// Split takes the payload of a CALL or HEAD frame apart: JSON head, body bytes.
func Split(payload []byte) (head, body []byte, err error) {
	if len(payload) < 2 {
		return nil, nil, fmt.Errorf("%w: no head", ErrMalformed)
	}
	n := int(binary.LittleEndian.Uint16(payload))
	if 2+n > len(payload) {
		return nil, nil, fmt.Errorf("%w: head of %d bytes in %d", ErrMalformed, n, len(payload))
	}
	return payload[2 : 2+n], payload[2+n:], nil
}
