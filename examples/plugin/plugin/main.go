// Plugin runs functions in a process of its own, for the host beside it. It keeps
// what it needs in the directory that it is given.
package main

import (
	"log"
	"log/slog"
	"os"

	"github.com/fnkit/fnkit/sandbox/pluginbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: plugin DIR")
	}
	box, err := procbox.New(procbox.Config{
		Dir: os.Args[1], Path: os.Getenv("PATH"),
		Logger: pluginbox.Logger(slog.LevelInfo), // into the host's log
	})
	if err == nil {
		err = pluginbox.Serve(box) // until the host closes it or dies
	}
	if err != nil {
		log.Fatal(err) // the host's log, too, has what is printed here
	}
}
