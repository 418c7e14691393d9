package main_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	p := command(t, pathWith(t, "node"), "doctor")
	if code := p.exits(t); code != 0 || p.log.String() != "" {
		t.Fatalf("exit code %d: %s", code, p.log.String())
	}
	out := p.out.String()
	for _, want := range []string{
		`^Machine    ` + runtime.GOOS + `/` + runtime.GOARCH + `, [0-9]+ CPUs\n`,
		`\nRuntimes\n  node-[0-9.]+ +Node\.js [0-9.]+, /.*node\n +100 calls at once, console output per call\n`,
		`\n  exec-1 +any program that serves HTTP .*\n +1 call at once, console output per instance\n\n`,
		`\nIsolation  (none|restricted|userns|full): functions (are|have) .*\n`,
		`\nLimits     .*wall\n( +not enforced: .*\n)?`,
		`\nSpares     .*\n  node-[0-9.]+ +(up to [0-9]+|none)\n  exec-1 +none\n`,
		`\nFor more\n(  - .*\n)*  - python: install Python 3.*\n`,
		`\n  - go: install Go `, `\n  - php: install PHP `, `\n  - ruby: install Ruby `, `\n  - bun: (install Bun|not at) `, `\n  - deno: install Deno `,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "node: install") {
		t.Errorf("asks for what is there:\n%s", out)
	}
}

func TestDoctorOfABareMachine(t *testing.T) {
	t.Parallel()
	p := command(t, t.TempDir(), "doctor")
	code := p.exits(t)
	if want := "\n  no language: install Node.js, Bun, Deno, Python 3, PHP, Ruby or Go\n"; code != 0 || !strings.Contains(p.out.String(), want) {
		t.Errorf("exit code %d, says\n%s%s", code, p.out.String(), p.log.String())
	}
}

// TestDoctorForPrograms says the same in JSON.
func TestDoctorForPrograms(t *testing.T) {
	t.Parallel()
	p := command(t, pathWith(t, "node"), "doctor", "-json")
	code := p.exits(t)
	var d struct {
		Machine  struct{ OS string }
		Runtimes []struct {
			ID, Version, Command, NativeLogs string
			Concurrency, Spares              int
			FirstCall                        *struct{ WithSpareMs, WithoutSpareMs float64 }
		}
		Isolation string
		Limits    []struct {
			Name     string
			Enforced bool
		}
		Missing []struct{ Of, Why string }
	}
	if err := json.Unmarshal([]byte(p.out.String()), &d); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s", code, err, p.out.String())
	}
	if len(d.Runtimes) != 2 || !filepath.IsAbs(d.Runtimes[0].Command) || strings.Count(d.Runtimes[0].Version, ".") != 2 || d.Runtimes[0].Concurrency != 100 ||
		d.Runtimes[1].ID != "exec-1" || d.Runtimes[1].Command != "" || d.Runtimes[1].NativeLogs != "instance" {
		t.Errorf("runtimes %+v", d.Runtimes)
	}
	if d.Runtimes[0].FirstCall != nil || d.Runtimes[1].Spares != 0 {
		t.Errorf("runtimes %+v", d.Runtimes)
	}
	if d.Machine.OS != runtime.GOOS || len(d.Limits) != 5 || !d.Limits[4].Enforced || !regexp.MustCompile(`^(none|restricted|userns|full)$`).MatchString(d.Isolation) {
		t.Errorf("%+v", d)
	}
	for _, m := range d.Missing {
		if m.Of == "" || m.Why == "" || m.Of == "node" {
			t.Errorf("missing %+v", m)
		}
	}
}

// TestDoctorMeasures has it make first calls, in each language there is.
func TestDoctorMeasures(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"node", "bun", "deno", "python", "php", "ruby"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			name := key
			if key == "python" {
				name = "python3"
			}
			p := command(t, pathWith(t, name), "doctor", "-json", "-measure")
			code := p.exits(t)
			var d struct {
				Runtimes []struct {
					ID        string
					Spares    int
					FirstCall *struct {
						WithSpareMs, WithoutSpareMs float64
						Error                       string
					}
				}
			}
			if err := json.Unmarshal([]byte(p.out.String()), &d); code != 0 || err != nil || len(d.Runtimes) == 0 {
				t.Fatalf("exit code %d, %v\n%s%s", code, err, p.out.String(), p.log.String())
			}
			r := d.Runtimes[0]
			if r.ID == "exec-1" || r.Spares == 0 {
				t.Skipf("no spares of %s here", key)
			}
			if f := r.FirstCall; f == nil || f.Error != "" || f.WithSpareMs <= 0 || f.WithoutSpareMs <= 0 {
				t.Errorf("%s: %+v, want first calls with a spare and without", r.ID, f)
			}
		})
	}
}
