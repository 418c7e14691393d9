package main_test

import (
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
		`\nRuntimes\n  node-[0-9.]+ +Node\.js +[0-9]+ calls at once, console output per call\n  exec-1 .*\n\n`,
		`\nIsolation  (none|restricted|userns|full): functions (are|have) .*\n`,
		`\nLimits     .*wall\n`,
		`\nFor more\n(  - .*\n)*  - python: install Python 3.*\n`,
		`\n  - go: install Go `, `\n  - php: install PHP `, `\n  - ruby: install Ruby `,
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
	if want := "\n  no language: install Node.js, Python 3, PHP, Ruby or Go\n"; code != 0 || !strings.Contains(p.out.String(), want) {
		t.Errorf("exit code %d, says\n%s%s", code, p.out.String(), p.log.String())
	}
}
