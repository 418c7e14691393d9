//go:build amd64 || arm64

package confine_test

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// BenchmarkRun runs a program that does nothing, bare, by bubblewrap if it is
// there, and at each tier, turn by
// turn, so that all meet the same noise. It reports least and median times.
func BenchmarkRun(b *testing.B) {
	type variant struct {
		name  string
		run   func() *exec.Cmd
		times []time.Duration
		cpu   time.Duration
	}
	variants := []*variant{{name: "bare", run: func() *exec.Cmd {
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return cmd
	}}}
	if bwrap, err := exec.LookPath("bwrap"); err == nil {
		args := []string{"--unshare-all", "--die-with-parent", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"}
		for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64", "/etc/ssl", "/etc/alternatives"} {
			args = append(args, "--ro-bind", dir, dir)
		}
		variants = append(variants, &variant{name: "bwrap", run: func() *exec.Cmd {
			cmd := exec.Command(bwrap, append(args, "/bin/true")...)
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
			return cmd
		}})
	}
	for _, tier := range tiers {
		h := openAt(b, b.TempDir(), tier)
		p := plan(b, "")
		p.Args, p.Memory, p.CPUs = []string{"/bin/true"}, 256<<20, 2
		if h.Namespaces() {
			p.Temp, p.TempSize = "", 64<<20
		}
		variants = append(variants, &variant{name: tier.String(), run: func() *exec.Cmd { return runOnce(b, h, p) }})
		without := openAt(b, b.TempDir(), tier)
		if err := without.WithoutGroups(); err != nil {
			b.Fatal(err)
		}
		variants = append(variants, &variant{name: tier.String() + "-no-cgroup", run: func() *exec.Cmd { return runOnce(b, without, p) }})
		if h.Namespaces() {
			shared := p
			shared.Network = true
			variants = append(variants, &variant{name: tier.String() + "-no-cgroup-host-net", run: func() *exec.Cmd { return runOnce(b, without, shared) }})
		}
	}
	for b.Loop() {
		for _, v := range variants {
			began := time.Now()
			cmd := v.run()
			v.times = append(v.times, time.Since(began))
			v.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
	}
	for _, v := range variants {
		slices.Sort(v.times)
		b.ReportMetric(float64(v.times[0].Microseconds()), v.name+"-min-µs")
		b.ReportMetric(float64(v.times[len(v.times)/2].Microseconds()), v.name+"-p50-µs")
		b.ReportMetric(float64(v.cpu.Microseconds())/float64(len(v.times)), v.name+"-cpu-µs")
	}
}

func runOnce(b *testing.B, h *confine.Host, p confine.Plan) *exec.Cmd {
	cmd := exec.Command("")
	c, err := h.Confine(cmd, p)
	if err == nil {
		if err = c.Start(); err == nil {
			err = cmd.Wait()
		}
	}
	if err != nil {
		b.Fatal(err, c.Failure())
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	return cmd
}
