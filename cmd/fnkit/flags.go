package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/httpapi"
)

// options are what the command line of serve says.
type options struct {
	addr      string
	data      string
	projects  list
	keys      []httpapi.Key
	users     []httpapi.User
	runtimes  list
	isolation string
	endpoint  string
	lease     time.Duration
	drain     time.Duration
	sync      time.Duration
	idle      time.Duration
	instances int
	proxy     bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// parseServe reads the flags of serve; help and mistakes go to out.
func parseServe(args []string, out io.Writer) (options, error) {
	var o options
	var keys, keyFiles, users, userFiles list
	f := flag.NewFlagSet("fnkit serve", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "`host:port` to listen on; port 0 picks one")
	f.StringVar(&o.data, "data", "fnkit-data", "`directory` for database, code and keys")
	f.Var(&o.projects, "project", "`id` of a project; may be repeated")
	f.Var(&keys, "key", "API key, as `[project:]secret[=scope,scope…]`; may be repeated. Others can see the command line: prefer -key-file")
	f.Var(&keyFiles, "key-file", "`file` with one key a line, in the form of -key; may be repeated")
	f.Var(&users, "user", "user and token, as `[project:]id=token[=role,role…]`; may be repeated")
	f.Var(&userFiles, "user-file", "`file` with one user a line, in the form of -user; may be repeated")
	f.Var(&o.runtimes, "runtime", "`id` of a runtime to allow; may be repeated (default: all that are found)")
	f.StringVar(&o.isolation, "isolation", "none", "least isolation to accept: `none`, restricted, userns or full")
	f.StringVar(&o.endpoint, "endpoint", "", "`URL` of the API that functions are told (default: from -addr)")
	f.DurationVar(&o.lease, "lease", 30*time.Second, "after this long without a sign of life work goes to another worker")
	f.DurationVar(&o.drain, "drain", 30*time.Second, "how long running work may take to end at shutdown")
	f.DurationVar(&o.sync, "sync-timeout", 30*time.Second, "how long a synchronous caller waits")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long an idle instance stays")
	f.IntVar(&o.instances, "instances", 0, "instances at once in all (default: 16 for each CPU)")
	f.BoolVar(&o.proxy, "trust-proxy", false, "take a client's address from X-Forwarded-For")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", err, errUsage)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("serve takes no argument %q: %w", f.Arg(0), errUsage)
	}
	return o, errors.Join(o.readKeys(keys, keyFiles), o.readUsers(users, userFiles), o.check())
}

func (o *options) check() error {
	if len(o.projects) == 0 {
		o.projects = list{"demo"}
	}
	if len(o.keys)+len(o.users) == 0 {
		return fmt.Errorf("nobody could use the server: give a -key or -key-file: %w", errUsage)
	}
	for _, k := range o.keys {
		if k.Project != "" && !slices.Contains(o.projects, k.Project) {
			return fmt.Errorf("a key names the project %q, which no -project does: %w", k.Project, errUsage)
		}
	}
	return nil
}

func (o *options) readKeys(values, files list) error {
	values, err := withLines(values, files)
	if err != nil {
		return err
	}
	for _, v := range values {
		head, scopes, scoped := strings.Cut(v, "=")
		project, secret, ok := strings.Cut(head, ":")
		if !ok {
			project, secret = "", head
		}
		k := httpapi.Key{Project: project, Secret: secret}
		if scoped {
			k.Scopes = strings.Split(scopes, ",")
		}
		if secret == "" || strings.HasPrefix(secret, "dynamic_") {
			return fmt.Errorf("a key is empty or begins with dynamic_: %w", errUsage)
		}
		o.keys = append(o.keys, k)
	}
	return nil
}

func (o *options) readUsers(values, files list) error {
	values, err := withLines(values, files)
	if err != nil {
		return err
	}
	for _, v := range values {
		parts := strings.SplitN(v, "=", 3)
		if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
			return fmt.Errorf("a user is not of the form id=token: %w", errUsage)
		}
		project, id, ok := strings.Cut(parts[0], ":")
		if !ok {
			project, id = "", parts[0]
		}
		u := httpapi.User{Project: project, ID: id, Token: parts[1]}
		if len(parts) == 3 {
			u.Roles = strings.Split(parts[2], ",")
		}
		o.users = append(o.users, u)
	}
	return nil
}

// withLines adds the lines of files to values; empty lines and those that
// begin with "#" are left out.
func withLines(values, files list) (list, error) {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
				values = append(values, line)
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return values, nil
}
