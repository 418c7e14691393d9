// Package archive unpacks and packs gzipped tar archives that come from
// strangers: nothing leaves the directory, and everything is bounded.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
)

// Limits bound what an archive may unpack to, or what a directory may hold.
type Limits struct {
	Bytes int64 // of all files together
	Files int   // entries: files, directories and links
}

// Stats say what an archive holds.
type Stats struct {
	Bytes int64
	Files int // entries that are not directories
}

// Bounds of names that no limit raises.
const (
	maxName  = 4096 // bytes of a path
	maxDepth = 100  // parts of a path

	// perEntry is what headers and padding of an entry may take on average.
	perEntry = 16 << 10
)

// invalid is a fault of the archive, in words for whoever made it.
type invalid struct{ text string }

func (i *invalid) Error() string { return i.text }

func invalidf(format string, args ...any) error { return &invalid{fmt.Sprintf(format, args...)} }

// IsInvalid reports whether err is a fault of the archive itself, and not of
// the machine it is unpacked on.
func IsInvalid(err error) bool {
	var i *invalid
	return errors.As(err, &i)
}

// Unpack writes the files of a gzipped tar into an empty directory. It refuses
// an archive with names that are absolute or leave the directory, with links
// that do, with devices, or beyond the limits; what was written by then stays.
// Modes become 0644 or 0755 (less the umask), owners and times are ignored. It
// reads at most Limits.Bytes and 16 KiB for each allowed entry.
func Unpack(ctx context.Context, r io.Reader, dir string, l Limits) (Stats, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Stats{}, err
	}
	defer root.Close()
	zr, err := gzip.NewReader(r)
	if err != nil {
		return Stats{}, readError(err)
	}
	defer zr.Close()
	in := &bounded{ctx: ctx, r: zr, left: l.Bytes + int64(l.Files+1)*perEntry}
	u := &unpacker{root: root, limits: l, tr: tar.NewReader(in)}
	for {
		h, err := u.tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.entry(h)
		}
		if err != nil {
			return u.stats, readError(err)
		}
	}
	// What follows the tar is only read for the checksum behind it.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return u.stats, readError(err)
	}
	return u.stats, u.makeLinks()
}

// readError makes the faults of gzip and tar data faults of the archive.
func readError(err error) error {
	switch {
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, io.EOF):
		return invalidf("it is not a gzip file")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf("it is cut off")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, tar.ErrHeader), isCorrupt(err):
		return invalidf("it is damaged: %v", err)
	}
	return err
}

func isCorrupt(err error) bool {
	return strings.HasPrefix(err.Error(), "flate: corrupt input") || strings.HasPrefix(err.Error(), "archive/tar: ")
}

type unpacker struct {
	root    *os.Root
	limits  Limits
	tr      *tar.Reader
	stats   Stats
	entries int
	links   []*tar.Header // made last, so that nothing is written through them
}

func (u *unpacker) entry(h *tar.Header) error {
	if u.entries++; u.entries > u.limits.Files {
		return invalidf("it has more than %d entries", u.limits.Files)
	}
	name, err := cleanName(h.Name)
	if err != nil || name == "." {
		return err
	}
	h.Name = name
	switch h.Typeflag {
	case tar.TypeDir:
		return u.made(u.root.MkdirAll(name, 0o755), name)
	case tar.TypeReg:
		u.stats.Files++
		return u.file(h)
	case tar.TypeSymlink, tar.TypeLink:
		u.stats.Files++
		u.links = append(u.links, h)
		return nil
	case tar.TypeXGlobalHeader:
		return nil
	}
	return invalidf("%q is neither file, directory nor link", h.Name)
}

// cleanName returns a name that stays in the directory.
func cleanName(name string) (string, error) {
	clean := path.Clean(name)
	switch {
	case len(name) > maxName || strings.Count(name, "/") > maxDepth:
		return "", invalidf("the name %.64q… is too long", name)
	case name == "" || strings.ContainsAny(name, "\x00\n\\"):
		return "", invalidf("the name %q is not allowed", name)
	case path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../"):
		return "", invalidf("the name %q leaves the archive", name)
	}
	return clean, nil
}

func (u *unpacker) file(h *tar.Header) error {
	if err := u.made(u.root.MkdirAll(path.Dir(h.Name), 0o755), h.Name); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	if err := u.root.Remove(h.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return u.made(err, h.Name) // a second entry of the name replaces a file, not a directory
	}
	f, err := u.root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return u.made(err, h.Name)
	}
	n, err := io.Copy(f, io.LimitReader(u.tr, u.limits.Bytes-u.stats.Bytes+1))
	u.stats.Bytes += n
	if err == nil && u.stats.Bytes > u.limits.Bytes {
		err = invalidf("it unpacks to more than %d bytes", u.limits.Bytes)
	}
	return errors.Join(err, f.Close())
}

// made turns a failure to make name into a fault of the archive, unless the
// disk is to blame.
func (u *unpacker) made(err error, name string) error {
	var p *os.PathError
	if err == nil || !errors.As(err, &p) || diskTrouble(p.Err) {
		return err
	}
	return invalidf("%q cannot be made: %v", name, p.Err)
}

// makeLinks makes the links of the archive, each only if it stays inside.
func (u *unpacker) makeLinks() error {
	for _, h := range u.links {
		if err := u.link(h); err != nil {
			return err
		}
	}
	for _, h := range u.links { // where a link leads depends on the others
		if leaves(u.root, h.Name) {
			return invalidf("the link %q leaves the archive", h.Name)
		}
	}
	return nil
}

// leaves reports whether following a name may lead out of the root. One that
// leads nowhere does not.
func leaves(root *os.Root, name string) bool {
	_, err := root.Stat(name)
	return err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ELOOP) &&
		!errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.ENAMETOOLONG)
}

func (u *unpacker) link(h *tar.Header) error {
	if err := u.made(u.root.MkdirAll(path.Dir(h.Name), 0o755), h.Name); err != nil {
		return err
	}
	if err := u.root.Remove(h.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return u.made(err, h.Name)
	}
	if h.Typeflag == tar.TypeLink {
		target, err := cleanName(h.Linkname)
		if err != nil {
			return err
		}
		if info, err := u.root.Lstat(target); err != nil || !info.Mode().IsRegular() {
			return invalidf("the link %q has no file %q", h.Name, h.Linkname)
		}
		return u.made(u.root.Link(target, h.Name), h.Name)
	}
	if !insideLink(h.Name, h.Linkname) {
		return invalidf("the link %q leaves the archive", h.Name)
	}
	return u.made(u.root.Symlink(h.Linkname, h.Name), h.Name)
}

// insideLink reports whether a symbolic link at name may point to target, going
// by the words of the paths.
func insideLink(name, target string) bool {
	if target == "" || path.IsAbs(target) || strings.ContainsAny(target, "\x00\\") || len(target) > maxName {
		return false
	}
	to := path.Join(path.Dir(name), target)
	return to != ".." && !strings.HasPrefix(to, "../")
}

// bounded ends reading when ctx ends, and when more comes out of a small file
// than any allowed archive needs, such as headers without end.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, invalidf("it unpacks to too many bytes")
	}
	return n, err
}
