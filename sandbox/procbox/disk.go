package procbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// defaultBuildDisk is Config.BuildDisk's.
	defaultBuildDisk = 4 << 30
	// diskPause is between two looks at what a build has written, if that is quick
	// to see; a tenth of the time at most is spent on looking.
	diskPause = 250 * time.Millisecond
)

// watchDisk kills a job when more lies in the directories than may. over ends the
// watch, when the job has ended, and reports whether it is too much.
func watchDisk(j *job, limit int64, dirs ...string) (over func() bool) {
	if limit < 0 {
		return func() bool { return false }
	}
	done, found := make(chan struct{}), make(chan bool, 1)
	go func() {
		pause := time.NewTimer(diskPause)
		defer pause.Stop()
		for {
			select {
			case <-done:
				found <- usage(limit, dirs) > limit // in no time much can be written, too
				return
			case <-pause.C:
			}
			began := time.Now()
			if usage(limit, dirs) > limit {
				j.kill()
				found <- true
				return
			}
			pause.Reset(max(diskPause, 9*time.Since(began)))
		}
	}()
	return func() bool {
		close(done)
		return <-found
	}
}

// usage is how many bytes of the disk the directories take; it stops counting when
// that is more than enough. What lies too deep to be counted is.
func usage(enough int64, dirs []string) (n int64) {
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if d == nil {
				return nil // it is gone
			}
			var info fs.FileInfo
			if err == nil {
				info, err = d.Info()
			}
			switch {
			case err == nil:
				n += allocated(info)
			case errors.Is(err, syscall.ENAMETOOLONG):
				n = enough + 1
			}
			if n > enough {
				return fs.SkipAll
			}
			return nil
		})
	}
	return n
}

// overDisk says which limit was broken.
func overDisk(bytes int64) string {
	return fmt.Sprintf("more than the disk limit of %d MiB was used", bytes>>20)
}
