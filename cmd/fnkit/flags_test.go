package main_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	fnkit "github.com/fnkit/fnkit/cmd/fnkit"
)

// file writes a file for a flag to name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCommandLineMistakes(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t" // is never told, wherever it stands
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		args string
		want string
		code int
	}{
		{"start", `unknown command "start"`, 2},
		{"serve", "nobody could use the server", 2},
		{"serve -key-file " + file(t, "\n# only a remark\n"), "nobody could use the server", 2},
		{"serve -no-such-flag=s3cr3t -key x", "flag provided but not defined: -no-such-flag", 2},
		{"serve -key", "flag needs an argument: -key", 2},
		{"serve -key s3cr3t s3cr3t", "argument 3 is none", 2},
		{"serve -key demo: s3cr3t", "argument 3 is none", 2},
		{"serve -key ", "a key is empty", 2},
		{"serve -key demo:", "a key is empty", 2},
		{"serve -key dynamic_s3cr3t", "begins with dynamic_", 2},
		{"serve -key s3cr3t=", "are not scopes", 2},
		{"serve -key s3cr3t==", "are not scopes", 2},
		{"serve -key a=functions.read,s3cr3t", "are not scopes", 2},
		{"serve -key blog:s3cr3t", `a key names the project "blog"`, 2},
		{"serve -key s3cr3t -key demo:s3cr3t=functions.read", "a key is given twice", 2},
		{"serve -key-file " + file(t, "s3cr3t\ns3cr3t\n"), "a key is given twice", 2},
		{"serve -key-file " + missing, "no such file", 1},
		{"serve -key-file " + filepath.Dir(missing), "is a directory", 1},
		{"serve -key x -user-file " + missing, "no such file", 1},
		{"serve -user s3cr3t", "not of the form id=token", 2},
		{"serve -user =s3cr3t", "not of the form id=token", 2},
		{"serve -user bob=", "not of the form id=token", 2},
		{"serve -user bob=s3cr3t=", `the token of user "bob"`, 2},
		{"serve -user bob=s3cr3t==", `the token of user "bob"`, 2},
		{"serve -user bob=s3cr3t=admin", `the token of user "bob"`, 2},
		{"serve -user bob=s3cr3t=user:alice", `the token of user "bob"`, 2},
		{"serve -user bob=s3cr3t=any", `the token of user "bob"`, 2},
		{"serve -user b!b=s3cr3t", `"b!b" cannot be the id of a user`, 2},
		{"serve -user blog:bob=s3cr3t", `the user "bob" is of the project "blog"`, 2},
		{"serve -user bob=s3cr3t -user eve=s3cr3t", `the users "bob" and "eve"`, 2},
		{"serve -user bob=s3cr3t -user demo:bob=other", `the users "bob" and "bob"`, 2},
		{"serve -key x -project console", `"console" cannot be the id of a project`, 2},
		{"serve -key x -project a/b", `"a/b" cannot be the id of a project`, 2},
		{"serve -key x -project ", `"" cannot be the id of a project`, 2},
		{"serve -key x -lease soon", `invalid value "soon" for flag -lease`, 2},
		{"serve -key x -instances many", `invalid value "many" for flag -instances`, 2},
		{"doctor s3cr3t", "argument 1 is none", 2},
		{"doctor -x", "flag provided but not defined: -x", 2},
	} {
		var out, log bytes.Buffer
		err := fnkit.Run(t.Context(), strings.Split(c.args, " "), &out, &log)
		if err == nil || !strings.Contains(err.Error(), c.want) || fnkit.ExitCode(err) != c.code {
			t.Errorf("%s: got %v with exit code %d, want %q with %d", c.args, err, fnkit.ExitCode(err), c.want, c.code)
			continue
		}
		if told := err.Error() + out.String() + log.String(); strings.Contains(told, secret) || strings.Count(told, "\n") > 0 {
			t.Errorf("%s: says %q", c.args, told)
		}
	}
}

// TestSettingsThatCannotBeStarted are understood, but fail before anything is
// served.
func TestSettingsThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	path := pathWith(t)
	for args, want := range map[string]string{
		"-lease 10ms":         "Work.Lease",
		"-sync-timeout -1s":   "SyncTimeout",
		"-instances -1":       "Instances.Max",
		"-isolation strong":   `MinIsolation: "strong"`,
		"-isolation full":     `isolates functions at level "none"`,
		"-runtime cobol-85":   "-runtime cobol-85: this machine has exec-1",
		"-addr 127.0.0.1:xxx": "listen tcp",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			p := launch(t, path, filepath.Join(t.TempDir(), "data"), strings.Fields(args)...)
			if code := p.exits(t); code != 1 || !strings.Contains(p.log.String(), want) {
				t.Errorf("exit code %d: %s", code, p.log.String())
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"serve -h": "-key-file file\n", "serve --help": "host:port to listen on", "doctor -h": "Usage: fnkit doctor",
		"help": "fnkit serve ", "-h": "fnkit doctor ", "--help": "fnkit version ", "": "fnkit runs functions", "version": "1.6.2\n",
	} {
		var out, log bytes.Buffer
		err := fnkit.Run(t.Context(), strings.Fields(args), &out, &log)
		if err != nil && !errors.Is(err, flag.ErrHelp) || fnkit.ExitCode(err) != 0 && err != nil {
			t.Errorf("%q: %v", args, err)
		}
		if !strings.Contains(out.String(), want) || log.Len() > 0 {
			t.Errorf("%q says %q, and logs %q", args, out.String(), log.String())
		}
	}
}

// TestKeysAndUsers starts a server with every form of keys and users, and
// tries what each may do in each project.
func TestKeysAndUsers(t *testing.T) {
	t.Parallel()
	long := "# " + strings.Repeat("a remark ", 20_000) // longer than the buffer of a scanner
	keys := file(t, long+"\n\n  in-a-file  \r\n#in-a-remark\nblog:last-in-a-file=functions.read,execution.read")
	users := file(t, "# users\nblog:dora=dora-token=team:red/owner,label:vip\n")
	p := serve(t, pathWith(t), filepath.Join(t.TempDir(), "data"),
		"-project", "blog", "--key", "shop:of-one-project", "-key=reads=functions.read", "-key-file", keys,
		"-user", "alice=alice-token", "--user=shop:bob=bob-token=team:red,member:m1", "-user-file", users)

	for _, c := range []struct {
		key              string
		read, write      int // of functions in shop
		readBlog, writes int // in blog
	}{
		{key, 200, 400, 200, 400},
		{"of-one-project", 200, 400, 401, 401},
		{"reads", 200, 401, 200, 401},
		{"in-a-file", 200, 400, 200, 400},
		{"last-in-a-file", 401, 401, 200, 401},
		{"in-a-remark", 401, 401, 401, 401},
		{"", 401, 401, 401, 401},
		{"shop:of-one-project", 401, 401, 401, 401},
		{"reads=functions.read", 401, 401, 401, 401},
	} {
		for i, want := range []int{c.read, c.write, c.readBlog, c.writes} {
			method, in := []string{"GET", "POST"}[i%2], []string{"shop", "blog"}[i/2]
			r, err := p.ask(t.Context(), method, "/v1/functions", map[string]any{}, "X-Appwrite-Key", c.key, "X-Appwrite-Project", in)
			if err != nil || r.status != want {
				t.Errorf("key %q: %s in %s: status %d, want %d: %s %v", c.key, method, in, r.status, want, r.raw, err)
			}
		}
	}
	for token, want := range map[string][2]int{ // who is known is told that the function is not
		"alice-token": {404, 404}, "bob-token": {404, 401}, "dora-token": {401, 404}, "bob": {401, 401}, "": {401, 401},
	} {
		for i, in := range []string{"shop", "blog"} {
			p.must(t, want[i], "GET", "/v1/functions/f/executions", nil, "X-Appwrite-Key", "", "X-Appwrite-Session", token, "X-Appwrite-Project", in)
		}
	}
	p.must(t, 404, "GET", "/v1/functions", nil, "X-Appwrite-Project", "other")
}
