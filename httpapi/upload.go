package httpapi

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"

	"github.com/fnkit/fnkit/engine"
)

// uploadSlack is what an upload may be longer than the archive: clients exist
// that send a part of it twice, and there is the form around it.
const uploadSlack = 5<<20 + smallBody

// maxField bounds the text fields of an upload, in bytes.
const maxField = 4*engine.MaxCommands + 1

// upload is the form of a deployment.
type upload struct {
	values map[string]any
	name   string // of the file in part "code"
	code   *spool // nil: none
	slice  *spool // part "file": what some clients send besides the whole in "code"
}

func (u *upload) close() {
	u.code.close()
	u.slice.close()
}

func (a *API) createDeployment(c *call) error {
	up, err := a.readUpload(c)
	defer up.close()
	if err != nil {
		return err
	}
	in := &input{values: up.values, path: c.r.PathValue}
	function := in.id("functionId")
	p := engine.DeployParams{Type: "manual"}
	p.Entrypoint = in.text("entrypoint", between(1, engine.MaxEntrypoint))
	if commands := in.text("commands", between(0, engine.MaxCommands)); up.values["commands"] != nil {
		p.Commands = &commands
	}
	in.need("activate")
	p.Activate = in.looseBoolean("activate")
	if in.err != nil {
		return in.err
	}
	if strings.EqualFold(c.r.Header.Get("X-Sdk-Language"), "cli") {
		p.Type = "cli"
	}
	d, err := a.deploy(c, function, p, up)
	if err != nil {
		return err
	}
	return c.json(http.StatusAccepted, c.format.deployment(deploymentModel(d)))
}

// deploy hands a whole archive, or one part of it, to the engine.
func (a *API) deploy(c *call, function string, p engine.DeployParams, up *upload) (engine.Deployment, error) {
	ctx := c.r.Context()
	header := c.r.Header.Get("Content-Range")
	chunk, refused := up.chunk(header)
	if refused != nil {
		p.Source, p.Size = unreadable{refused}, -1
		return c.p.Deploy(ctx, c.by, function, p)
	}
	if header == "" {
		p.Source, p.Size = up.code.section(0, up.code.size), up.code.size
		return c.p.Deploy(ctx, c.by, function, p)
	}
	p.Source, p.Size = chunk.Source, chunk.Size
	chunk.DeployParams = p
	chunk.DeploymentID = c.r.Header.Get("X-Appwrite-ID")
	return c.p.DeployChunk(ctx, c.by, function, chunk)
}

// chunk checks the file and finds the bytes that a Content-Range header names.
func (u *upload) chunk(header string) (ch engine.Chunk, refused *engine.Error) {
	switch {
	case u.code == nil || u.code.size == 0 && header == "":
		return ch, engine.Errorf(engine.TypeFileEmpty, "No file sent")
	case !strings.HasSuffix(strings.ToLower(u.name), ".gz"):
		return ch, engine.Errorf(engine.TypeFileType, "")
	case header == "":
		return ch, nil
	}
	start, end, total, ok := parseContentRange(header)
	if !ok {
		return ch, engine.Errorf(engine.TypeContentRange, "")
	}
	n := end - start + 1
	ch = engine.Chunk{Start: start, End: end, Total: total}
	ch.Size = n
	switch {
	case u.slice != nil && u.slice.size == n:
		ch.Source = u.slice.section(0, n)
	case u.code.size == n:
		ch.Source = u.code.section(0, n)
	case u.code.size == total:
		ch.Source = u.code.section(start, n)
	default:
		return ch, engine.Errorf(engine.TypeContentRange, "The content range is invalid: it names %d bytes, the file has %d.", n, u.code.size)
	}
	return ch, nil
}

var contentRange = regexp.MustCompile(`^[^0-9]*([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})$`)

// parseContentRange reads "bytes first-last/total". A last that is the total
// means the byte before it.
func parseContentRange(header string) (start, end, total int64, ok bool) {
	m := contentRange.FindStringSubmatch(strings.TrimSpace(header))
	if m == nil {
		return 0, 0, 0, false
	}
	start, end, total = number(m[1]), number(m[2]), number(m[3])
	ok = start <= end && end <= total && start < total
	return start, min(end, total-1), total, ok
}

// readUpload reads the whole form: its parts come in any order.
func (a *API) readUpload(c *call) (*upload, error) {
	up := &upload{}
	media, params := contentType(c.r)
	if media != "multipart/form-data" || c.r.ContentLength == 0 {
		var err error
		up.values, err = readBody(c.w, c.r, smallBody)
		return up, err
	}
	body := http.MaxBytesReader(c.w, c.r.Body, a.cfg.Limits.SourceSize+uploadSlack)
	pairs, err := readParts(multipart.NewReader(body, params["boundary"]), maxField, func(part *multipart.Part) error {
		return a.keepFile(up, part)
	})
	if err != nil {
		return up, uploadError(err)
	}
	up.values = nest(pairs)
	return up, nil
}

// keepFile keeps the first file of each name that matters.
func (a *API) keepFile(up *upload, part *multipart.Part) (err error) {
	switch name := part.FormName(); {
	case name == "code" && up.code == nil:
		up.name = part.FileName()
		up.code, err = newSpool(part, a.opt.TempDir)
	case name == "file" && up.slice == nil:
		up.slice, err = newSpool(part, a.opt.TempDir)
	default:
		_, err = io.Copy(io.Discard, part)
	}
	return err
}

// uploadError is the answer to an upload that cannot be read.
func uploadError(err error) error {
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return engine.Errorf(engine.TypeFileSize, "The file size is either not valid or exceeds the maximum allowed size: the request is larger than %d bytes.", tooBig.Limit)
	}
	return bodyError(err)
}
