package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/fnkit/fnkit/engine"
)

// spoolMemory is how much of a file is kept in memory.
const spoolMemory = 1 << 20

// spool holds a file of an upload until the whole request has been read: in
// memory, or in a temporary file if it is big.
type spool struct {
	data io.ReaderAt
	size int64
	file *os.File // nil: in memory
}

// newSpool reads r to its end. The caller closes the spool.
func newSpool(r io.Reader, dir string) (*spool, error) {
	var head bytes.Buffer
	if n, err := io.CopyN(&head, r, spoolMemory+1); err == io.EOF {
		return &spool{data: bytes.NewReader(head.Bytes()), size: n}, nil
	} else if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "fnkit-upload-*")
	if err != nil {
		return nil, spoolError(err)
	}
	os.Remove(f.Name()) // where that works on an open file, a crash leaves nothing
	s := &spool{data: f, file: f}
	src := &source{Reader: io.MultiReader(&head, r)}
	if s.size, err = io.Copy(f, src); err != nil {
		s.close()
		if src.err != nil {
			return nil, src.err
		}
		return nil, spoolError(err)
	}
	return s, nil
}

func spoolError(err error) error {
	return fmt.Errorf("keep an upload in a temporary file: %w", err)
}

// section returns n bytes from off on.
func (s *spool) section(off, n int64) io.Reader { return io.NewSectionReader(s.data, off, n) }

func (s *spool) close() {
	if s != nil && s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
	}
}

// source remembers why it could not be read, to tell a client that broke off
// from a disk that is full.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// unreadable is a source archive that is refused: the engine meets the error
// when it comes to read it, after the checks that go before.
type unreadable struct{ err *engine.Error }

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }
