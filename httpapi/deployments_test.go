package httpapi_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/httpapi"
)

func TestDeploymentModel(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.idle = true })
	fn := s.create(t, "echo", "commands", "make")
	a := s.upload(t, fn, form{code: archive(t)}).ok(http.StatusAccepted)
	want := `{"$id":"` + a.id() + `","$createdAt":"T","$updatedAt":"T","type":"manual","resourceId":"` + fn + `","resourceType":"functions",` +
		`"entrypoint":"echo","size":` + itoa(len(archive(t))) + `,"buildSize":0,"buildId":"","activate":true,"status":"waiting","buildLogs":"","buildTime":0,` +
		`"providerRepositoryName":"","providerRepositoryOwner":"","providerRepositoryUrl":"","providerBranch":"","providerCommitHash":"","providerCommitAuthorUrl":"",` +
		`"providerCommitAuthor":"","providerCommitMessage":"","providerCommitUrl":"","providerBranchUrl":"","chunksTotal":1,"chunksUploaded":1}`
	if got := undated(a.raw); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.get(t, "/functions/"+fn+"/deployments/"+a.id()).ok(200); string(got.raw) != string(a.raw) {
		t.Errorf("read again: %s", got.raw)
	}
}

// Uploads as clients send them: parts in any order, values as texts.
func TestUpload(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.idle = true })
	fn := s.create(t, "echo", "commands", "make")
	for name, c := range map[string]struct {
		client client
		form   form
		want   map[string]any
	}{
		"code first":      {s.client, form{}, map[string]any{"activate": true, "type": "manual"}},
		"code last":       {s.client, form{last: true, activate: "false"}, map[string]any{"activate": false}},
		"1":               {s.client, form{activate: "1"}, map[string]any{"activate": true}},
		"0":               {s.client, form{activate: "0"}, map[string]any{"activate": false}},
		"cli":             {s.with("X-SDK-Language", "cli"), form{name: "f-code.tar.gz"}, map[string]any{"type": "cli"}},
		"entrypoint":      {s.client, form{fields: map[string]string{"entrypoint": "other", "commands": "", "functionId": fn}}, map[string]any{"entrypoint": "other"}},
		"upper case":      {s.client, form{name: "CODE.TAR.GZ"}, nil},
		"one chunk":       {s.client, form{rng: "bytes 0-" + itoa(len(archive(t))-1) + "/" + itoa(len(archive(t)))}, map[string]any{"chunksTotal": 1.0, "chunksUploaded": 1.0}},
		"end one too far": {s.client, form{rng: "bytes 0-" + itoa(len(archive(t))) + "/" + itoa(len(archive(t)))}, nil},
	} {
		c.form.code = archive(t)
		a := c.client.upload(t, fn, c.form).ok(http.StatusAccepted)
		for field, want := range c.want {
			if a.body[field] != want {
				t.Errorf("%s: %s is %v, want %v", name, field, a.body[field], want)
			}
		}
		if a.text("status") != "waiting" || a.int("size") != len(archive(t)) {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

func TestUploadErrors(t *testing.T) {
	t.Parallel()
	const limit = 3 << 20
	s := newServer(t, func(u *setup) { u.idle, u.cfg.Limits.SourceSize = true, limit })
	fn := s.create(t, "echo")
	bare := s.create(t, "echo", "entrypoint", "")
	code := archive(t)
	n := itoa(len(code))
	entrypoint := "Invalid `entrypoint` param: Value must be a valid string and at least 1 chars and no longer than 1028 chars"
	for _, c := range []struct {
		name     string
		function string
		form     form
		typ      string
		message  []string
	}{
		{"no activate", fn, form{code: code, activate: "-"}, "general_argument_invalid", []string{`Param "activate" is not optional.`}},
		{"no activate, no function", "nobody", form{code: code, activate: "-"}, "general_argument_invalid", nil},
		{"activate", fn, form{code: code, activate: "yes"}, "general_argument_invalid", []string{"Invalid `activate` param: Value must be a valid boolean"}},
		{"entrypoint first", fn, form{code: code, activate: "yes", fields: map[string]string{"entrypoint": ""}}, "general_argument_invalid", []string{entrypoint}},
		{"entrypoint", fn, form{code: code, fields: map[string]string{"entrypoint": strings.Repeat("e", 1029)}}, "general_argument_invalid", []string{entrypoint}},
		{"commands", fn, form{code: code, fields: map[string]string{"commands": strings.Repeat("c", 8193)}}, "general_argument_invalid", nil},
		{"function", "nobody", form{code: code, name: "x.zip"}, "function_not_found", nil},
		{"entrypoint missing", bare, form{name: "x.zip", code: code}, "function_entrypoint_missing", nil},
		{"no file", fn, form{}, "storage_file_empty", []string{"No file sent"}},
		{"code as text", fn, form{fields: map[string]string{"code": "x"}}, "storage_file_empty", nil},
		{"empty file", fn, form{code: []byte{}}, "storage_file_empty", nil},
		{"extension", fn, form{code: code, name: "code.zip", rng: "nonsense"}, "storage_file_type_unsupported", nil},
		{"no range", fn, form{code: code, rng: "nonsense"}, "storage_invalid_content_range", nil},
		{"start after end", fn, form{code: code, rng: "bytes 5-4/" + n}, "storage_invalid_content_range", nil},
		{"end after total", fn, form{code: code, rng: "bytes 0-9/8"}, "storage_invalid_content_range", nil},
		{"no total", fn, form{code: code, rng: "bytes 0-9/*"}, "storage_invalid_content_range", nil},
		{"total zero", fn, form{code: code, rng: "bytes 0-0/0"}, "storage_invalid_content_range", nil},
		{"wrong length", fn, form{code: code, rng: "bytes 0-4/100000"}, "storage_invalid_content_range", nil},
		{"huge numbers", fn, form{code: code, rng: "bytes 0-99999999999999999999/99999999999999999999"}, "storage_invalid_content_range", nil},
		{"off the grid", fn, form{code: code[:5], rng: "bytes 3-7/100"}, "storage_invalid_content_range", nil},
		{"off the grid, own id", fn, form{code: code[:5], rng: "bytes 3-7/100", id: "own"}, "storage_invalid_content_range", nil},
		{"last part first", fn, form{code: code[:5], rng: "bytes 100-104/105"}, "storage_invalid_content_range", nil},
		{"id", fn, form{code: code[:5], rng: "bytes 0-4/100", id: "../x"}, "general_argument_invalid", nil},
		{"announced too big", fn, form{code: code, rng: "bytes 0-" + itoa(len(code)-1) + "/" + itoa(limit+1)}, "storage_invalid_file_size", nil},
		{"too big", fn, form{code: make([]byte, limit+1)}, "storage_invalid_file_size", nil},
		{"far too big", fn, form{code: make([]byte, limit+7<<20)}, "storage_invalid_file_size", nil},
	} {
		t.Run(c.name, func(t *testing.T) { s.upload(t, c.function, c.form).fails(c.typ, c.message...) })
	}
	// Of what was refused, nothing is left.
	if total := s.get(t, "/functions/"+fn+"/deployments").int("total"); total != 0 {
		t.Errorf("there are %d deployments", total)
	}
	s.upload(t, fn, form{code: make([]byte, limit)}).ok(http.StatusAccepted)
	s.post(t, "/functions/"+fn+"/deployments", map[string]any{"activate": true}).ok(400).fails("storage_file_empty")
	s.with("Content-Type", "multipart/form-data; boundary=x").post(t, "/functions/"+fn+"/deployments", "--x\r\nnonsense").ok(400).fails("general_bad_request")
	s.with("Content-Type", "multipart/form-data").post(t, "/functions/"+fn+"/deployments", "x").ok(400).fails("general_bad_request")
}

// Forms that no client writes.
func TestUploadForms(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.idle = true })
	fn := s.create(t, "echo")
	const activate = "--x\r\nContent-Disposition: form-data; name=\"activate\"\r\n\r\ntrue\r\n"
	file := func(disposition string) string {
		return "--x\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + string(archive(t)) + "\r\n"
	}
	code := file(`name="code"; filename="a.tar.gz"`)
	send := func(body string) answer {
		return s.with("Content-Type", "multipart/form-data; boundary=x").post(t, "/functions/"+fn+"/deployments", body)
	}
	for name, body := range map[string]string{
		"a path":           activate + file(`name="code"; filename="../../a.tar.gz"`),
		"no quotes":        activate + file(`name=code; filename=a.tar.gz`),
		"encoded name":     activate + file(`name="code"; filename*=UTF-8''%C3%A4.tar.gz`),
		"code twice":       activate + code + file(`name="code"; filename="a.zip"`),
		"unknown parts":    activate + code + file(`name="other"; filename="o"`) + "--x\r\n\r\nno disposition\r\n",
		"a preamble":       "before\r\n" + activate + code,
		"deep names":       activate + code + "--x\r\nContent-Disposition: form-data; name=\"" + strings.Repeat("n[", 1<<20) + "\"\r\n\r\n\r\n",
		"activate twice":   "--x\r\nContent-Disposition: form-data; name=\"activate\"\r\n\r\nno\r\n" + activate + code,
		"transfer encoded": activate + strings.Replace(code, "\r\n\r\n", "\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", 1),
	} {
		if a := send(body + "--x--\r\n"); a.status != http.StatusAccepted || a.int("size") != len(archive(t)) {
			t.Errorf("%s: %d %.300s", name, a.status, a.raw)
		}
	}
	for name, body := range map[string]string{
		"no end":       activate + code,
		"half a head":  activate + "--x\r\nContent-Dis",
		"a large head": activate + "--x\r\nX-Large: " + strings.Repeat("h", 11<<20) + "\r\n\r\n\r\n--x--\r\n",
		"many heads":   activate + "--x\r\n" + strings.Repeat("X-Many: h\r\n", 20_000) + "\r\n\r\n--x--\r\n",
	} {
		if a := send(body); a.status != 400 || a.body["type"] != "general_bad_request" {
			t.Errorf("%s: %d %.300s", name, a.status, a.raw)
		}
	}
	send(activate + file(`name="code"`) + "--x--\r\n").ok(400).fails("storage_file_empty") // a text
}

// A request that ends early leaves nothing: no file, no record, no call.
func TestRequestEndsEarly(t *testing.T) {
	t.Parallel()
	answered := make(chan httpapi.Outcome, 10)
	temp := t.TempDir()
	s := newServer(t, func(u *setup) {
		u.idle, u.opt.TempDir = true, temp
		u.opt.OnResponse = func(r *http.Request, o httpapi.Outcome) {
			if r.Header.Get("X-Early") != "" {
				answered <- o
			}
		}
	})
	fn := s.create(t, "echo")
	body, contentType := form{code: archive(t, make([]byte, 3<<20)...)}.encode(t)
	for _, c := range []struct{ path, contentType, body string }{
		{"/deployments", contentType, string(body[:len(body)/2])},
		{"/executions", "application/json", `{"body":"x"`},
		{"/executions", "application/x-www-form-urlencoded", "body=x"},
		{"/variables", "application/json", `{"key":"k","value":"v"}`},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/functions/%s%s HTTP/1.1\r\nHost: h\r\nX-Early: 1\r\nX-Appwrite-Project: %s\r\nX-Appwrite-Key: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			fn, c.path, project, allKey, c.contentType, len(body), c.body)
		conn.Close()
		if o := <-answered; o.Status != 400 || o.Err == nil || !strings.Contains(o.Err.Error(), "ended early") {
			t.Errorf("%s: %+v", c.path, o)
		}
	}
	for _, list := range []string{"deployments", "executions", "variables"} {
		if a := s.get(t, "/functions/"+fn+"/"+list).ok(200); a.int("total") != 0 {
			t.Errorf("got %s", a.raw)
		}
	}
	for _, dir := range []string{temp, s.blobs} {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
			if d != nil && !d.IsDir() {
				t.Errorf("%s is left", path)
			}
			return nil
		})
	}
}

// A whole archive in parts, as each kind of client sends them.
func TestChunks(t *testing.T) {
	t.Parallel()
	const size = 1 << 16
	code := archive(t, bytes.Repeat([]byte{7}, 5*size)...)
	parts := (len(code) + size - 1) / size
	s := newServer(t)
	send := func(t *testing.T, fn, id string, i int, whole bool) answer {
		chunk, rng := part(code, i, size)
		f := form{code: chunk, rng: rng, id: id}
		if whole { // some clients send all of it each time, and the part as "file"
			f.code, f.slice = code, chunk
		}
		return s.upload(t, fn, f).ok(http.StatusAccepted)
	}
	download := func(t *testing.T, fn, id string) {
		t.Helper()
		s.await(t, "/functions/"+fn+"/deployments/"+id, "ready")
		if got := s.get(t, "/functions/"+fn+"/deployments/"+id+"/download").ok(200); !bytes.Equal(got.raw, code) {
			t.Errorf("%d bytes came back of %d", len(got.raw), len(code))
		}
	}
	for name, whole := range map[string]bool{"in order": false, "whole file each time": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn := s.create(t, "echo")
			var id string
			for i := range parts {
				a := send(t, fn, id, i, whole)
				if i < parts-1 && (a.text("status") != "" || a.int("size") != len(code)) || a.int("chunksUploaded") != i+1 || a.int("chunksTotal") != parts {
					t.Errorf("part %d: %s", i, a.raw)
				}
				if id != "" && a.id() != id {
					t.Errorf("part %d went to %s", i, a.id())
				}
				id = a.id()
			}
			download(t, fn, id)
		})
	}
	t.Run("parallel, out of order", func(t *testing.T) {
		t.Parallel()
		fn := s.create(t, "echo")
		id := send(t, fn, "", 0, false).id()
		var wg sync.WaitGroup
		for i := parts - 1; i > 0; i-- {
			wg.Go(func() { send(t, fn, id, i, false) })
		}
		wg.Wait()
		download(t, fn, id)
		if a := s.get(t, "/functions/"+fn+"/deployments").ok(200); a.int("total") != 1 {
			t.Errorf("got %s", a.raw)
		}
	})
	t.Run("twice, cut from the whole, own id", func(t *testing.T) {
		t.Parallel()
		fn := s.create(t, "echo")
		for i := range parts {
			_, rng := part(code, i, size)
			for range 2 {
				if a := s.upload(t, fn, form{code: code, rng: rng, id: "my-upload"}).ok(http.StatusAccepted); a.id() != "my-upload" {
					t.Errorf("got %s", a.raw)
				}
			}
		}
		download(t, fn, "my-upload")
	})
	t.Run("first parts at once, with an id of the client's", func(t *testing.T) {
		t.Parallel()
		fn := s.create(t, "echo")
		var wg sync.WaitGroup
		for i := range 2 * (parts - 1) {
			wg.Go(func() { send(t, fn, "chosen", i%(parts-1), i%2 == 0) })
		}
		wg.Wait()
		for range 2 {
			wg.Go(func() { send(t, fn, "chosen", parts-1, false) })
		}
		wg.Wait()
		download(t, fn, "chosen")
	})
	t.Run("after a restart, and again when all is there", func(t *testing.T) {
		t.Parallel()
		fn := s.create(t, "echo")
		id := send(t, fn, "", 0, false).id()
		restarted := newServer(t, func(u *setup) { u.idle, u.cfg.Store, u.cfg.Blobs = true, s.store, s.eng.Config().Blobs })
		for i := 1; i < parts; i++ {
			chunk, rng := part(code, i, size)
			restarted.upload(t, fn, form{code: chunk, rng: rng, id: id}).ok(http.StatusAccepted)
		}
		download(t, fn, id)
		_, rng := part(code, 1, size)
		a := s.upload(t, fn, form{code: make([]byte, size), rng: rng, id: id}).ok(http.StatusAccepted)
		if a.text("status") != "ready" {
			t.Errorf("got %s", a.raw)
		}
		download(t, fn, id)
	})
	t.Run("wrong parts", func(t *testing.T) {
		t.Parallel()
		fn, other := s.create(t, "echo"), s.create(t, "echo")
		id := send(t, fn, "", 0, false).id()
		chunk, rng := part(code, 1, size)
		s.upload(t, other, form{code: chunk, rng: rng, id: id}).ok(404).fails("deployment_not_found")
		s.upload(t, fn, form{code: chunk, rng: "bytes 1-" + itoa(size) + "/" + itoa(len(code)), id: id}).ok(400).fails("storage_invalid_content_range")
		s.upload(t, fn, form{code: chunk, rng: "bytes 0-" + itoa(size-1) + "/" + itoa(len(code)+1), id: id}).ok(400).fails("storage_invalid_content_range")
		s.do(t, "PATCH", "/functions/"+fn+"/deployments/"+id, nil).ok(404).fails("build_not_found")
		s.get(t, "/functions/"+fn+"/deployments/"+id+"/download").ok(404).fails("deployment_not_found")
		s.do(t, "DELETE", "/functions/"+fn+"/deployments/"+id, nil).ok(204)
	})
	t.Run("lost parts", func(t *testing.T) {
		t.Parallel()
		fn := s.create(t, "echo")
		var id string
		for i := range parts - 1 {
			id = send(t, fn, id, i, false).id()
		}
		if err := os.RemoveAll(filepath.Join(s.blobs, "uploads", project, fn, id)); err != nil {
			t.Fatal(err)
		}
		chunk, rng := part(code, parts-1, size)
		s.upload(t, fn, form{code: chunk, rng: rng, id: id}).ok(403).fails("storage_invalid_file")
	})
}

func TestDownload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo")
	id := s.deploy(t, fn)
	path, code := "/functions/"+fn+"/deployments/"+id+"/download", archive(t)
	n := len(code)
	a := s.with("Accept-Encoding", "gzip").get(t, path).ok(200)
	for name, want := range map[string]string{
		"Content-Type": "application/gzip", "Content-Disposition": `attachment; filename="` + id + `.tar.gz"`, "Cache-Control": "private, max-age=3888000",
		"Accept-Ranges": "bytes", "Content-Length": itoa(n), "Content-Encoding": "",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !bytes.Equal(a.raw, code) {
		t.Errorf("got %d bytes of %d", len(a.raw), n)
	}
	for rng, want := range map[string][2]int{
		"bytes=0-0": {0, 1}, "bytes=0-9": {0, 10}, "bytes=5-": {5, n}, "bytes=-3": {n - 3, n}, "bytes=-999999999": {0, n}, "bytes=0-999999999": {0, n},
		"bytes=0-99999999999999999999999": {0, n}, "bytes=" + itoa(n-1) + "-": {n - 1, n},
	} {
		a := s.with("Range", rng).get(t, path).ok(206)
		if !bytes.Equal(a.raw, code[want[0]:want[1]]) || a.header.Get("Content-Range") != "bytes "+itoa(want[0])+"-"+itoa(want[1]-1)+"/"+itoa(n) {
			t.Errorf("%s: %d bytes, %s", rng, len(a.raw), a.header.Get("Content-Range"))
		}
	}
	for _, rng := range []string{"bytes=0-1,3-4", "lines=0-1", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=x-y", "0-1"} {
		if a := s.with("Range", rng).get(t, path).ok(200); !bytes.Equal(a.raw, code) {
			t.Errorf("%s: %d bytes", rng, len(a.raw))
		}
	}
	for _, rng := range []string{"bytes=" + itoa(n) + "-", "bytes=99999999999999999999-", "bytes=-0"} {
		a := s.with("Range", rng).get(t, path).ok(416).fails("storage_invalid_range")
		if a.header.Get("Content-Range") != "bytes */"+itoa(n) || a.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %v", rng, a.header)
		}
	}
}

// Conditions come before ranges, also before one that does not exist.
func TestDownloadConditions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo")
	path, n := "/functions/"+fn+"/deployments/"+s.deploy(t, fn)+"/download", len(archive(t))
	whole := s.get(t, path).ok(200)
	etag, modified, past := whole.header.Get("ETag"), whole.header.Get("Last-Modified"), "Mon, 02 Jan 2006 15:04:05 GMT"
	const none = "bytes=99999999-"
	for _, c := range []struct {
		name, value, rng string
		status, size     int
	}{
		{"If-None-Match", etag, "", 304, 0}, {"If-None-Match", etag, "bytes=0-4", 304, 0}, {"If-None-Match", etag, none, 304, 0}, {"If-None-Match", "*", "", 304, 0},
		{"If-None-Match", `"other"`, "", 200, n}, {"If-None-Match", `"other"`, "bytes=0-4", 206, 5},
		{"If-Modified-Since", modified, "", 304, 0}, {"If-Modified-Since", past, "", 200, n},
		{"If-Range", etag, "bytes=0-4", 206, 5}, {"If-Range", modified, "bytes=0-4", 206, 5}, {"If-Range", etag, none, 416, 0},
		{"If-Range", `"other"`, "bytes=0-4", 200, n}, {"If-Range", past, "bytes=0-4", 200, n}, {"If-Range", `"other"`, none, 200, n}, {"If-Range", "W/" + etag, none, 200, n},
		{"If-Match", etag, "bytes=0-4", 206, 5}, {"If-Match", `"other"`, "", 412, 0}, {"If-Unmodified-Since", past, none, 412, 0},
	} {
		a := s.with(c.name, c.value, "Range", c.rng).get(t, path)
		if a.status != c.status || a.status < 300 && len(a.raw) != c.size {
			t.Errorf("%s: %s, Range: %s: %d, %d bytes", c.name, c.value, c.rng, a.status, len(a.raw))
		}
	}
}

// What replaces a deleted archive under the same id is told from it.
func TestDownloadOfAnotherArchive(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo")
	path, tags := "/functions/"+fn+"/deployments/mine", map[string]bool{}
	for range 2 {
		code := archive(t)
		rng := "bytes 0-" + itoa(len(code)-1) + "/" + itoa(len(code))
		s.upload(t, fn, form{code: code, rng: rng, id: "mine"}).ok(202)
		tags[s.get(t, path+"/download").ok(200).header.Get("ETag")] = true
		s.do(t, "DELETE", path, nil).ok(204)
	}
	if len(tags) != 2 {
		t.Errorf("got %v", tags)
	}
}

func TestDeploymentLifecycle(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn, other := s.create(t, "echo"), s.create(t, "echo")
	first := s.deploy(t, fn)
	base := "/functions/" + fn + "/deployments/"
	s.do(t, "PATCH", base+first+"/build", nil).ok(400).fails("build_already_completed")
	s.do(t, "POST", base+first+"/build", map[string]any{}).ok(204)
	s.do(t, "POST", base+first+"/builds/any", nil).ok(204)
	list := s.get(t, base[:len(base)-1]+"?queries[]="+query("orderDesc", "", "$id")).ok(200)
	if list.int("total") != 3 {
		t.Fatalf("got %s", list.raw)
	}
	second := list.ids("deployments")[0]
	s.await(t, base+second, "ready")
	a := s.do(t, "PATCH", base+first, map[string]any{}).ok(200)
	if a.id() != fn || a.text("deployment") != first {
		t.Errorf("got %s", a.raw)
	}
	if again := s.do(t, "PATCH", base+first, nil).ok(200); again.text("$updatedAt") != a.text("$updatedAt") {
		t.Errorf("nothing changed: %s", again.raw)
	}
	for _, req := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/build"}, {"POST", "/builds/b"}, {"PATCH", "/build"}, {"GET", "/download"}} {
		s.do(t, req[0], base+"nobody"+req[1], nil).ok(404).fails("deployment_not_found")
		s.do(t, req[0], "/functions/"+other+"/deployments/"+first+req[1], nil).ok(404).fails("deployment_not_found")
	}
	s.do(t, "DELETE", base+first, nil).ok(204)
	s.do(t, "DELETE", base+first, nil).ok(404).fails("deployment_not_found")
	if a := s.get(t, "/functions/"+fn).ok(200); a.text("deployment") != "" {
		t.Errorf("got %s", a.raw)
	}
}

func TestCancelBuild(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.idle = true })
	fn := s.create(t, "echo")
	id := s.upload(t, fn, form{code: archive(t)}).ok(202).id()
	path := "/functions/" + fn + "/deployments/" + id
	s.do(t, "PATCH", path, nil).ok(404).fails("build_not_found")
	a := s.do(t, "PATCH", path+"/build", map[string]any{}).ok(200)
	want := `{"$id":"` + a.id() + `","deploymentId":"` + id + `","status":"canceled","stdout":"","stderr":"","startTime":"T","endTime":"T","duration":0,"size":0}`
	if got := undated(a.raw); got != want || a.id() == "" {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := s.do(t, "PATCH", path+"/build", nil).ok(200); string(again.raw) != string(a.raw) {
		t.Errorf("again: %s", again.raw)
	}
	if d := s.get(t, path).ok(200); d.text("status") != "canceled" || d.text("buildId") != a.id() {
		t.Errorf("got %s", d.raw)
	}
	s.do(t, "PATCH", path, nil).ok(400).fails("build_not_ready")
}
