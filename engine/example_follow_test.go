package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// The output of an execution is followed while it runs.
func ExampleProject_FollowLogs() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	db, _ := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
	defer db.Close()
	heard := make(chan bool)
	goOn := sync.OnceFunc(func() { close(heard) })
	eng, _ := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(dir), Keys: engine.Key("k1", []byte("a secret of at least 16 bytes")), MinIsolation: "none",
		Sandbox: fnbox.New(fnbox.Funcs{"import": func(_ context.Context, c *fnbox.Context) error {
			c.Log("half of it")
			<-heard
			c.Log("all of it")
			return c.Empty()
		}}),
	})
	eng.Start(ctx)
	defer eng.Stop(ctx)
	shop := eng.Project("shop")
	shop.CreateFunction(ctx, engine.System, engine.FunctionParams{ID: "import", Name: "Import", Runtime: fnbox.RuntimeID, Entrypoint: "import"})
	d, _ := shop.Deploy(ctx, engine.System, "import", engine.DeployParams{Source: empty(), Size: -1, Activate: true})
	build, _ := shop.FollowBuildLogs(ctx, engine.System, "import", d.ID, 0)
	defer build.Close()
	build.Next(ctx) // io.EOF: it is built
	x, _ := shop.Execute(ctx, engine.System, "import", engine.ExecuteParams{Async: true})

	follow, err := shop.FollowLogs(ctx, engine.System, "import", x.ID, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer follow.Close()
	for {
		chunks, err := follow.Next(ctx)
		if err != nil { // io.EOF: it has ended
			break
		}
		for _, c := range chunks {
			fmt.Printf("%s: %s", c.Stream, c.Data)
		}
		goOn()
	}
	fmt.Println(follow.Status())
	// Output:
	// stdout: half of it
	// stdout: all of it
	// completed
}

// empty is an archive for functions whose code is in this program.
func empty() io.Reader {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	tw.WriteHeader(&tar.Header{Name: "README", Mode: 0o644})
	tw.Close()
	zw.Close()
	return &b
}
