package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/store"
)

// printers are functions that print with the language's own console, past the context,
// and let others run in between.
var printers = map[string]struct{ file, text string }{
	"node": {"index.mjs", jsPrinter}, "bun": {"index.mjs", jsPrinter}, "deno": {"index.mjs", jsPrinter},
	"python": {"main.py", `
import time

def main(context):
    for _ in range(3):
        print(context.req.query["n"])
        time.sleep(0.001)
    return context.res.empty()
`},
	"php": {"index.php", `<?php return function ($context) {
    for ($i = 0; $i < 3; $i++) {
        echo $context->req->query['n'], "\n";
        usleep(1000);
    }
    return $context->res->empty();
};`},
	"ruby": {"index.rb", `def main(context)
  3.times do
    puts context.req.query["n"]
    sleep 0.001
  end
  context.res.empty
end
`},
}

const jsPrinter = `export default async ({ req, res }) => {
  for (let i = 0; i < 3; i++) {
    console.log(req.query.n);
    await new Promise((done) => setTimeout(done, 1));
  }
  return res.empty();
};`

// TestConsolesOfAThousandCalls makes a thousand calls at once, of which as many run at
// a time as the instances take: every line is in its own execution's record, in order, and
// in no other's. It is a thousand because that many are promised; they are short, so
// that a language takes some seconds on two CPUs, with the race detector too.
func TestConsolesOfAThousandCalls(t *testing.T) {
	t.Parallel()
	for _, r := range sandbox.Catalogue() {
		if _, ok := printers[strings.TrimSuffix(r.Key, "-ml")]; !ok && r.NativeLogs == sandbox.PerCall {
			t.Errorf("%s: the catalogue promises what nobody tries", r.Key)
		}
	}
	for key, p := range printers {
		t.Run(key, func(t *testing.T) { // one by one: each has all of the machine
			box, err := procbox.New(procbox.Config{Dir: filepath.Join(t.TempDir(), "box"), Path: os.Getenv("PATH"), Languages: []string{key}})
			if err != nil {
				t.Fatal(err)
			}
			h := start(t, box, func(c *engine.Config) { c.Instances.Wait, c.Limits.SyncTimeout = 5*time.Minute, 5*time.Minute })
			h.function(t, "prints", h.runtime(t, key), p.file)
			if d := h.deploy(t, "prints", map[string]string{p.file: p.text}); d.Status != store.DeploymentReady {
				t.Fatalf("%s: %s", d.Status, d.BuildLogs)
			}
			h.print(t, 1000)
		})
	}
}

// print makes calls at once and looks into their records.
func (h *host) print(t *testing.T, calls int) {
	t.Helper()
	words, errs := map[string]string{}, make([]error, calls) // of executions
	var mu sync.Mutex
	begin := make(chan struct{})
	var running sync.WaitGroup
	for n := range calls {
		running.Go(func() {
			<-begin
			word := strconv.Itoa(calls + n)
			var x engine.ExecuteResult
			x, errs[n] = h.p.Execute(t.Context(), engine.System, "prints", engine.ExecuteParams{Path: "/?n=" + word})
			mu.Lock()
			defer mu.Unlock()
			words[x.ID] = word
		})
	}
	close(begin)
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var q engine.Query
	for q.Limit = 500; len(words) > 0; {
		page, err := h.p.ListExecutions(t.Context(), engine.System, "prints", q)
		if err != nil || len(page.Items) == 0 {
			t.Fatalf("%d executions are not in the store, %v", len(words), err)
		}
		for _, x := range page.Items {
			notice, lines, _ := strings.Cut(x.Logs, "\n")
			if want := strings.Repeat(words[x.ID]+"\n", 3); lines != want || !strings.HasPrefix(notice, "Native logs detected.") || x.Errors != "" {
				t.Errorf("logs of %q: %q, %q", words[x.ID], x.Logs, x.Errors)
			}
			delete(words, x.ID)
			q.After = x.ID
		}
	}
}
