//go:build amd64 || arm64

package confine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// orders is the configuration of one run of init; its fields are described in
// init/init.c.
type orders struct {
	filter     []unix.SockFilter
	namespaces int
	uid, gid   int
	network    bool
	owners     bool
	born       bool
	groups     int
	hostname   string
	root       string
	directory  string
	late       string
	limits     []limit
	mounts     []mount
	rules      []rule
	args, env  []string
}

type limit struct {
	resource int
	value    int64
}

// mount is one step in the making of a file tree.
type mount struct{ kind, source, target, options string }

// rule admits a path to Landlock: "r" to read and execute, "w" to write as well.
type rule struct{ access, path string }

// encode returns the configuration as init reads it.
func (o orders) encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("FNKINIT1\x00")
	b.Write(make([]byte, 7))
	binary.Write(&b, binary.LittleEndian, uint64(8*len(o.filter)))
	binary.Write(&b, binary.LittleEndian, o.filter)
	w := words{b: &b}
	w.number(o.namespaces, o.uid, o.gid, toInt(o.network), toInt(o.owners), toInt(o.born), o.groups)
	w.text(o.hostname, o.root, o.directory, o.late)
	w.number(len(o.limits))
	for _, l := range o.limits {
		w.number(l.resource)
		w.text(strconv.FormatUint(uint64(l.value), 10))
	}
	w.number(len(o.mounts))
	for _, m := range o.mounts {
		w.text(m.kind, m.source, m.target, m.options)
	}
	w.number(len(o.rules))
	for _, r := range o.rules {
		w.text(r.access, r.path)
	}
	w.list(o.args)
	w.list(o.env)
	return b.Bytes(), w.err
}

var errNUL = errors.New("a NUL in an argument or variable")

// words writes words that end in a NUL.
type words struct {
	b   *bytes.Buffer
	err error
}

func (w *words) text(all ...string) {
	for _, s := range all {
		if strings.ContainsRune(s, 0) {
			w.err = errNUL
		}
		w.b.WriteString(s)
		w.b.WriteByte(0)
	}
}

func (w *words) number(all ...int) {
	for _, n := range all {
		w.text(strconv.Itoa(n))
	}
}

func (w *words) list(all []string) {
	w.number(len(all))
	w.text(all...)
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// file returns the configuration as a file that init inherits.
func (o orders) file() (*os.File, error) {
	text, err := o.encode()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("fnkit-config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "fnkit-config")
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
