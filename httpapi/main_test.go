package httpapi_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails a complete run that left a described error of an operation
// untried, or a goroutine behind.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code == 0 && complete() {
		if missing := untried(); len(missing) > 0 {
			fmt.Printf("no test met these errors:\n%s\n", strings.Join(missing, "\n"))
			code = 1
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")); code == 0 && err != nil {
		fmt.Println(err)
		code = 1
	}
	os.Exit(code)
}

// complete reports whether all tests were asked for.
func complete() bool {
	for _, name := range []string{"run", "skip", "list", "fuzz"} {
		if flag.Lookup("test."+name).Value.String() != "" {
			return false
		}
	}
	return true
}

// untried are the errors of operations that are described and no test met.
func untried() (missing []string) {
	doc, _ := description()
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, typ := range errorsOf(op) {
				if _, met := seen.Load(op.OperationID + " " + typ); !met {
					missing = append(missing, op.OperationID+" "+typ)
				}
			}
		}
	}
	return missing
}
