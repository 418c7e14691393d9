package procbox

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
	"github.com/fnkit/fnkit/sandbox"
)

// admit counts the instance in; it fails once the Box is closed.
func (b *Box) admit(i *instance) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	if i.spare() {
		b.spares.unbound[i] = i.spareOf
	} else if err := b.free(i.info.ID); err != nil {
		return err
	} else {
		b.instances[i.info.ID] = i
	}
	b.active.Add(1)
	return nil
}

// free reports that an instance's id is not taken. The Box's mutex is held.
func (b *Box) free(id string) error {
	if _, taken := b.instances[id]; taken {
		return fmt.Errorf("instance %q exists already", id)
	}
	return nil
}

var errClosed = errors.New("procbox: closed")

func (b *Box) remove(i *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.instances[i.info.ID] == i {
		delete(b.instances, i.info.ID)
	}
	b.spares.retire(i)
}

// end takes an instance out of service and kills its processes. why says
// what it did wrong; empty: nothing, it is the Box that ends it. It does not
// wait. An instance ends once.
func (b *Box) end(i *instance, why string) {
	b.remove(i)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ending || i.reaped {
		return
	}
	i.ending, i.crash = true, why
	i.job.kill()
}

// watch waits for the process, then removes what is left of the instance.
func (b *Box) watch(i *instance) {
	defer b.active.Done()
	err := i.job.wait()
	if i.web != nil {
		i.web.console.drain()
	}
	i.mu.Lock()
	i.reaped = true
	crashed := !i.ending
	if crashed {
		i.crash = i.reason(err)
	}
	why := i.crash
	i.mu.Unlock()
	b.remove(i) // nobody can make it an instance after this
	i.hangUp(nil)
	if err := errors.Join(i.job.close(), b.state.release(i.scratch)); err != nil {
		b.log.Warn("remove what is left of an instance", "instance", i.info.ID, "error", err)
	}
	if why != "" {
		b.log.Warn("instance died", "instance", i.info.ID, "function", i.info.Function, "why", why)
	}
	close(i.dead)
	if i.spare() {
		b.refill() // it may have died waiting
	}
}

// watchChannel kills the process when its channel is closed or abused.
func (b *Box) watchChannel(i *instance) {
	<-i.conn.Done()
	if err := i.conn.Err(); errors.Is(err, frame.ErrProtocol) {
		b.end(i, err.Error())
		return
	}
	timer := time.NewTimer(exitGrace)
	defer timer.Stop()
	select {
	case <-i.dead:
	case <-timer.C:
		b.end(i, "it closed its channel")
	}
}

// reason says how the process ended by itself.
func (i *instance) reason(err error) string {
	why := i.job.failure()
	if i.web != nil && strings.HasPrefix(why, "run ") {
		return "it could not be started: " + why // its file is no program, or needs an interpreter that is not there
	}
	if why != "" {
		i.refused = true
		return "it could not be shut in: " + why
	}
	why = exitReason(err, i.output.String())
	hits := i.job.hits()
	if hits.Processes > i.told.Processes {
		why = overProcesses() + ": " + why
	}
	if hits.Memory > 0 {
		why = overMemory(i.memory) + ": " + why
	}
	return why
}

// tell logs to a call that failed which limits the instance has hit since the last
// that was told: its own code knows at most that something could not be done.
func (i *instance) tell(status int, logging bool, s sandbox.Sink) {
	if status < 500 || !logging {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	hits := i.job.hits()
	if hits.Memory > i.told.Memory {
		s.Log(sandbox.Stderr, []byte(overMemory(i.memory)+"\n"))
	}
	if hits.Processes > i.told.Processes {
		s.Log(sandbox.Stderr, []byte(overProcesses()+"\n"))
	}
	i.told = hits
}

// exitReason says how a process ended, with the end of what it printed.
func exitReason(err error, output string) string {
	why := "exit status 0"
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		why = exit.Error()
	}
	if output = strings.TrimSpace(output); output != "" {
		why += ": " + output
	}
	return why
}
