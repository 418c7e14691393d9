package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// Kinds of blobs: the first part of their keys.
const (
	sourceBlobs   = "sources"
	uploadBlobs   = "uploads"
	artefactBlobs = "artefacts"
)

func sourceBlob(project, function, deployment string) string {
	return sourceBlobs + "/" + project + "/" + function + "/" + deployment + ".tar.gz"
}

func artefactBlob(d Deployment) string {
	return artefactBlobs + "/" + d.Project + "/" + d.FunctionID + "/" + d.ID + "/" + d.BuildID + ".tar.gz"
}

func chunkBlob(d Deployment, index int) string {
	return uploadsOf(d.Project, d.FunctionID) + d.ID + "/" + strconv.Itoa(index)
}

// uploadsOf is what the keys of all parts of a function's uploads start with.
func uploadsOf(project, function string) string {
	return uploadBlobs + "/" + project + "/" + function + "/"
}

// maxChunks bounds how many parts an upload may have.
const maxChunks = 10_000

// Deploy stores a source archive and queues its build. An *Error that
// d.Source's Read returns is passed on. Errors: function_not_found,
// function_entrypoint_missing, storage_invalid_file_size, storage_file_empty.
func (p *Project) Deploy(ctx context.Context, by Actor, function string, d DeployParams) (Deployment, error) {
	fn, err := p.deployTarget(ctx, by, function, d)
	if err != nil {
		return Deployment{}, err
	}
	if d.Size > p.e.cfg.Limits.SourceSize {
		return Deployment{}, Errorf(TypeFileSize, "")
	}
	dep := p.newDeployment(fn, d)
	if dep.Size, err = p.putSource(ctx, dep.SourceBlob, d.Source); err != nil {
		return Deployment{}, err
	}
	if d.Size > 0 && d.Size != dep.Size {
		p.e.deleteBlobs(ctx, []string{dep.SourceBlob})
		return Deployment{}, wrongLength(dep.Size, d.Size)
	}
	if dep, err = p.queueBuild(ctx, dep); err != nil {
		return Deployment{}, err
	}
	p.emit(ctx, by, "functions."+function+".deployments."+dep.ID+".create", dep)
	return dep, nil
}

// DeployChunk stores one part of a source archive; when the last one that was
// missing has arrived, it queues the build. Parts may come in any order, at
// once, again, and after a restart. Errors as Deploy, and
// storage_invalid_content_range, deployment_not_found.
func (p *Project) DeployChunk(ctx context.Context, by Actor, function string, c Chunk) (Deployment, error) {
	fn, err := p.deployTarget(ctx, by, function, c.DeployParams)
	if err != nil {
		return Deployment{}, err
	}
	if c.Total > 0 && c.Start == 0 && c.End >= c.Total-1 { // all of it
		c.DeployParams.Size = c.Total
		if c.DeploymentID == "" {
			return p.Deploy(ctx, by, function, c.DeployParams)
		}
	}
	d, stored, err := p.upload(ctx, fn, c)
	if err != nil {
		return Deployment{}, err
	}
	index, err := c.index(d)
	if err != nil {
		return Deployment{}, err
	}
	if d.Status != store.DeploymentUploading {
		return d, nil // it came twice
	}
	if err := p.putChunk(ctx, d, index, c); err != nil {
		return Deployment{}, err
	}
	if d, err = p.noteChunk(ctx, d, stored, index, c); err != nil {
		return Deployment{}, err
	}
	if len(d.Chunks) == d.ChunksTotal && d.Status == store.DeploymentUploading {
		if d, err = p.assemble(ctx, d); err != nil {
			return Deployment{}, err
		}
	}
	if index == 0 || d.Status != store.DeploymentUploading {
		p.emit(ctx, by, "functions."+function+".deployments."+d.ID+".create", d)
	}
	return d, nil
}

// noteChunk records that a part is stored. The first one makes the deployment,
// so that there is none without a part. A part nobody waits for any more is
// removed again.
func (p *Project) noteChunk(ctx context.Context, d Deployment, stored bool, index int, c Chunk) (_ Deployment, err error) {
	orphan := chunkBlob(d, index)
	if !stored {
		d.Chunks = []int{index}
		made, err := p.create(ctx, d, false)
		if !errors.Is(err, store.ErrExists) {
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				p.e.deleteBlobs(ctx, []string{orphan})
			}
			return made, fail(err, TypeFunction)
		}
		// Another first part made it meanwhile; or it is another function's.
		if d, err = p.e.store.GetDeployment(ctx, p.id, d.FunctionID, d.ID); err == nil {
			_, err = c.index(d)
		}
		if err != nil {
			p.e.deleteBlobs(ctx, []string{orphan})
			return Deployment{}, fail(err, TypeDeployment)
		}
	}
	d, err = p.e.store.UpdateDeployment(ctx, p.id, d.FunctionID, d.ID, func(d *Deployment) error {
		if d.Status == store.DeploymentUploading && !slices.Contains(d.Chunks, index) {
			d.Chunks = append(d.Chunks, index)
			d.UpdatedAt = p.e.now()
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && d.Status != store.DeploymentUploading {
		p.e.deleteBlobs(ctx, []string{orphan})
	}
	return d, fail(err, TypeDeployment)
}

// deployTarget checks what can be checked before the source is read.
func (p *Project) deployTarget(ctx context.Context, by Actor, function string, d DeployParams) (Function, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Function{}, err
	}
	rules := []rule{{"entrypoint", CheckText(d.Entrypoint, 0, MaxEntrypoint)}}
	if d.Commands != nil {
		rules = append(rules, rule{"commands", CheckText(*d.Commands, 0, MaxCommands)})
	}
	if err := firstBroken(rules); err != nil {
		return Function{}, err
	}
	fn, err := p.e.store.GetFunction(ctx, p.id, function)
	if err != nil {
		return Function{}, fail(err, TypeFunction)
	}
	if cmp.Or(d.Entrypoint, fn.Entrypoint) == "" {
		return Function{}, Errorf(TypeEntrypoint, "")
	}
	return fn, nil
}

// newDeployment returns a deployment of fn that is not stored yet.
func (p *Project) newDeployment(fn Function, d DeployParams) Deployment {
	now := p.e.now()
	id := ids.New(now)
	commands := fn.Commands
	if d.Commands != nil {
		commands = *d.Commands
	}
	return Deployment{
		Project: p.id, ID: id, FunctionID: fn.ID, CreatedAt: now, UpdatedAt: now,
		Type: cmp.Or(d.Type, "manual"), Entrypoint: cmp.Or(d.Entrypoint, fn.Entrypoint), Commands: commands,
		Activate: d.Activate, SourceBlob: sourceBlob(p.id, fn.ID, id), Status: store.DeploymentWaiting, ReadyAt: now,
	}
}

// putSource stores an archive, within the limit.
func (p *Project) putSource(ctx context.Context, key string, r io.Reader) (int64, error) {
	limit := p.e.cfg.Limits.SourceSize
	n, err := p.e.cfg.Blobs.Put(ctx, key, &bounded{r, limit, Errorf(TypeFileSize, "")})
	switch {
	case err != nil:
		return 0, fail(err, "")
	case n == 0:
		p.e.deleteBlobs(ctx, []string{key})
		return 0, Errorf(TypeFileEmpty, "")
	}
	return n, nil
}

// bounded fails with an error when more than left bytes are read.
type bounded struct {
	r    io.Reader
	left int64
	err  *Error
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.err
	}
	return n, err
}

// queueBuild inserts a deployment whose source is stored; if it cannot be, the
// source goes. If that is not known, it stays: see sweep.
func (p *Project) queueBuild(ctx context.Context, d Deployment) (Deployment, error) {
	d, err := p.create(ctx, d, true)
	if err != nil {
		if !errors.Is(err, store.ErrUnavailable) {
			p.e.deleteBlobs(ctx, []string{d.SourceBlob})
		}
		return d, fail(err, TypeFunction)
	}
	p.e.builds.wake()
	return d, nil
}

// create inserts a deployment of a function that exists. One that is complete
// and to be activated keeps those before it from being so.
func (p *Project) create(ctx context.Context, d Deployment, complete bool) (Deployment, error) {
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if _, err := tx.GetFunction(ctx, p.id, d.FunctionID); err != nil {
			return err
		}
		if d.Seq, err = tx.CreateDeployment(ctx, d); err != nil || !complete || !d.Activate {
			return err
		}
		return tx.ClearActivate(ctx, p.id, d.FunctionID, d.ID)
	})
	return d, err
}

// upload returns the deployment that a part belongs to. If this is the first
// part that arrives, there is none yet: stored is false.
func (p *Project) upload(ctx context.Context, fn Function, c Chunk) (d Deployment, stored bool, err error) {
	if c.Total > p.e.cfg.Limits.SourceSize {
		return Deployment{}, false, Errorf(TypeFileSize, "")
	}
	if c.DeploymentID != "" {
		if err := CheckID(c.DeploymentID); err != nil {
			return Deployment{}, false, InvalidParam("X-Appwrite-ID", err)
		}
		d, err := p.e.store.GetDeployment(ctx, p.id, fn.ID, c.DeploymentID)
		if !errors.Is(err, store.ErrNotFound) {
			return d, true, fail(err, TypeDeployment)
		}
	}
	d = p.newDeployment(fn, c.DeployParams)
	d.ID = cmp.Or(c.DeploymentID, d.ID)
	size := c.End - c.Start + 1
	if c.Start < 0 || size < 1 || c.Total < 1 || c.Start >= c.Total || c.Start%size != 0 || (c.Total+size-1)/size > maxChunks {
		return Deployment{}, false, Errorf(TypeContentRange, "")
	}
	if c.End >= c.Total-1 && c.Start > 0 {
		return Deployment{}, false, Errorf(TypeContentRange, "The last part cannot be the first to arrive: its size does not tell that of the others.")
	}
	d.Status, d.Size, d.ReadyAt, d.SourceBlob = store.DeploymentUploading, c.Total, time.Time{}, ""
	d.ChunkSize, d.ChunksTotal = size, int((c.Total+size-1)/size)
	return d, false, nil
}

// index returns which part of d a chunk is.
func (c Chunk) index(d Deployment) (int, error) {
	last := int64(d.ChunksTotal-1) * d.ChunkSize
	ok := d.ChunksTotal > 0 && c.Total == d.Size && c.Start >= 0 && c.Start%d.ChunkSize == 0 && c.Start <= last
	end := min(c.Start+d.ChunkSize, d.Size) - 1
	if !ok || c.End != end && !(c.Start == last && c.End == c.Total) { // some clients count the end one too far
		return 0, Errorf(TypeContentRange, "")
	}
	return int(c.Start / d.ChunkSize), nil
}

// putChunk stores a part, which must have the length its range says.
func (p *Project) putChunk(ctx context.Context, d Deployment, index int, c Chunk) error {
	want := min(d.ChunkSize, d.Size-c.Start)
	key := chunkBlob(d, index)
	n, err := p.e.cfg.Blobs.Put(ctx, key, io.LimitReader(c.Source, want+1))
	if err == nil && n != want {
		p.e.deleteBlobs(ctx, []string{key})
		return wrongLength(n, want)
	}
	return fail(err, "")
}

func wrongLength(n, want int64) *Error {
	return Errorf(TypeContentRange, "The part has %s bytes and its range says %s.", atLeast(n, want), itoa(want))
}

func atLeast(n, limit int64) string {
	if n > limit {
		return "more than " + itoa(limit)
	}
	return itoa(n)
}

// assemble joins the parts into the source archive and queues the build. If it
// is cut off anywhere, the next part that comes again does it.
func (p *Project) assemble(ctx context.Context, d Deployment) (Deployment, error) {
	key := sourceBlob(p.id, d.FunctionID, d.ID)
	parts := &joined{open: func(i int) (io.ReadCloser, error) {
		if i == d.ChunksTotal {
			return nil, io.EOF
		}
		r, _, err := p.e.cfg.Blobs.Open(ctx, chunkBlob(d, i))
		return r, err
	}}
	defer parts.Close()
	size, err := p.e.cfg.Blobs.Put(ctx, key, parts)
	if errors.Is(err, store.ErrNotFound) { // somebody else assembled it just now
		now, err := p.e.store.GetDeployment(ctx, p.id, d.FunctionID, d.ID)
		if err == nil && now.Status == store.DeploymentUploading {
			err = Errorf(TypeFile, "")
		}
		return now, fail(err, TypeDeployment)
	}
	if err != nil {
		return d, fail(err, "")
	}
	err = p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		d, err = tx.UpdateDeployment(ctx, p.id, d.FunctionID, d.ID, func(d *Deployment) error {
			if d.Status == store.DeploymentUploading {
				d.Status, d.ReadyAt, d.SourceBlob, d.Size = store.DeploymentWaiting, p.e.now(), key, size
			}
			return nil
		})
		if err != nil || !d.Activate || d.SourceBlob == "" {
			return err
		}
		return tx.ClearActivate(ctx, p.id, d.FunctionID, d.ID)
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && d.SourceBlob == "" { // deleted or canceled meanwhile
		p.e.deleteBlobs(ctx, []string{key})
	}
	if err != nil {
		return d, fail(err, TypeDeployment)
	}
	p.e.deleteUploads(ctx, d)
	p.e.builds.wake()
	return d, nil
}

// joined reads parts one after the other.
type joined struct {
	open func(i int) (io.ReadCloser, error) // io.EOF after the last
	next int
	r    io.ReadCloser
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.r == nil {
			r, err := j.open(j.next)
			if err != nil {
				return 0, err
			}
			j.r, j.next = r, j.next+1
		}
		n, err := j.r.Read(p)
		if err == io.EOF {
			err = j.Close()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close closes the part that is open.
func (j *joined) Close() error {
	if j.r == nil {
		return nil
	}
	err := j.r.Close()
	j.r = nil
	return err
}

// deleteUploads removes the parts of an upload.
func (e *Engine) deleteUploads(ctx context.Context, d Deployment) {
	var keys []string
	for _, i := range d.Chunks {
		keys = append(keys, chunkBlob(d, i))
	}
	e.deleteBlobs(ctx, keys)
}

// deleteBlobs removes blobs that no record names any more. What cannot be
// removed is an orphan, logged and harmless.
func (e *Engine) deleteBlobs(ctx context.Context, keys []string) {
	for _, k := range keys {
		if k == "" {
			continue
		}
		if err := e.cfg.Blobs.Delete(context.WithoutCancel(ctx), k); err != nil {
			e.cfg.Logger.Warn("delete blob", "key", k, "error", err)
		}
	}
}

// deleteBlobsUnder removes every blob whose key starts with prefix.
func (e *Engine) deleteBlobsUnder(ctx context.Context, prefix string) error {
	ctx = context.WithoutCancel(ctx)
	var keys []string
	err := e.cfg.Blobs.List(ctx, prefix, func(b store.BlobInfo) bool {
		if strings.HasPrefix(b.Key, prefix) {
			keys = append(keys, b.Key)
		}
		return true
	})
	e.deleteBlobs(ctx, keys)
	return err
}
