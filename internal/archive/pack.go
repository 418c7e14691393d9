package archive

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Pack writes a directory as a gzipped tar: the same bytes for the same files.
// Times and owners are left out; links are kept if they stay inside the
// directory, and anything that is not a file, directory or link is skipped.
// What cannot be read, and names that Unpack refuses, are faults of the
// directory.
func Pack(ctx context.Context, dir string, w io.Writer, l Limits) (Stats, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Stats{}, err
	}
	defer root.Close()
	buffered := bufio.NewWriterSize(w, 64<<10)
	zw, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return Stats{}, err
	}
	p := &packer{ctx: ctx, root: root, limits: l, tw: tar.NewWriter(zw)}
	if err := fs.WalkDir(root.FS(), ".", p.visit); err != nil {
		return p.stats, err
	}
	for _, close := range []func() error{p.tw.Close, zw.Close, buffered.Flush} {
		if err := close(); err != nil {
			return p.stats, err
		}
	}
	return p.stats, nil
}

type packer struct {
	ctx     context.Context
	root    *os.Root
	limits  Limits
	tw      *tar.Writer
	stats   Stats
	entries int
}

func (p *packer) visit(name string, d fs.DirEntry, err error) error {
	if err == nil {
		err = p.ctx.Err()
	}
	if err != nil || name == "." {
		return unreadable(name, err)
	}
	if _, err := cleanName(filepath.ToSlash(name)); err != nil {
		return err
	}
	if p.entries++; p.entries > p.limits.Files {
		return invalidf("it has more than %d files", p.limits.Files)
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		p.stats.Files++
		return p.file(name, info)
	case info.IsDir():
		return p.tw.WriteHeader(header(name+"/", tar.TypeDir, 0o755))
	case info.Mode().Type() == fs.ModeSymlink:
		return p.link(name)
	}
	return nil
}

// unreadable makes a file that may not be read a fault of the directory.
func unreadable(name string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return invalidf("%q cannot be read", name)
	}
	return err
}

func header(name string, kind byte, mode int64) *tar.Header {
	return &tar.Header{Name: filepath.ToSlash(name), Typeflag: kind, Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func (p *packer) file(name string, info fs.FileInfo) error {
	if p.stats.Bytes += info.Size(); p.stats.Bytes > p.limits.Bytes {
		return invalidf("it has more than %d bytes", p.limits.Bytes)
	}
	h := header(name, tar.TypeReg, 0o644|int64(info.Mode()&0o111))
	h.Size = info.Size()
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	f, err := p.root.Open(name)
	if err != nil {
		return unreadable(name, err)
	}
	defer f.Close()
	_, err = io.CopyN(p.tw, f, info.Size())
	return err
}

func (p *packer) link(name string) error {
	target, err := p.root.Readlink(name)
	if err != nil {
		return err
	}
	if !insideLink(filepath.ToSlash(name), filepath.ToSlash(target)) || leaves(p.root, name) {
		return nil
	}
	p.stats.Files++
	h := header(name, tar.TypeSymlink, 0o777)
	h.Linkname = filepath.ToSlash(target)
	return p.tw.WriteHeader(h)
}
