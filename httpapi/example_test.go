package httpapi_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// newEngine returns an engine in a directory of its own.
func newEngine() (eng *engine.Engine, closeAll func()) {
	dir, err := os.MkdirTemp("", "fnkit-example-")
	if err != nil {
		log.Fatal(err)
	}
	st, err := sqlite.Open(context.Background(), filepath.Join(dir, "app.db"))
	if err != nil {
		log.Fatal(err)
	}
	eng, err = engine.New(engine.Config{
		Store: st, Blobs: dirblobs.New(filepath.Join(dir, "code")), Sandbox: fnbox.New(functions), MinIsolation: "none",
		Keys:  engine.Key("k1", []byte("a secret of 16 bytes or more")),
		Hooks: engine.Hooks{Payload: httpapi.EncodeRecord},
	})
	if err != nil {
		log.Fatal(err)
	}
	return eng, func() { st.Close(); os.RemoveAll(dir) }
}

// The API beside other handlers, for one key and one user.
func ExampleNew() {
	eng, closeAll := newEngine()
	defer closeAll()
	who := &httpapi.Keys{
		Engine: eng,
		Keys:   []httpapi.Key{{Project: "shop", Secret: "key-1"}},
		Users:  []httpapi.User{{Project: "shop", ID: "alice", Token: "token-1"}},
	}
	api, err := httpapi.New(eng, httpapi.Options{Identify: who.Identify})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", api)
	server := httptest.NewServer(mux)
	defer server.Close()

	resp, err := http.Get(server.URL + "/v1/health/version")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output: 200 {"version":"1.6.2"}
}

// A function as an http.Handler. Its answer is streamed; errors are answered by status.
func ExampleFunctionHandler() {
	eng, closeAll := newEngine()
	defer closeAll()
	server := httptest.NewServer(httpapi.FunctionHandler(eng, "shop", "hello"))
	defer server.Close()

	resp, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Print(resp.StatusCode, " ", string(body))
	// Output: 404 Function with the requested ID could not be found.
}

func ExampleEncodeRecord() {
	raw, err := httpapi.EncodeRecord(engine.Function{ID: "hello"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(raw[:14]))
	// Output: {"$id":"hello"
}
