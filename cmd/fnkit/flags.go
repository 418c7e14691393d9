package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/engine"
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
	confine   string
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

// parseServe reads the flags of serve; if they ask for help, it goes to out.
func parseServe(args []string, out io.Writer) (options, error) {
	var o options
	var keys, keyFiles, users, userFiles list
	f := flag.NewFlagSet("fnkit serve", flag.ContinueOnError)
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "`host:port` to listen on; port 0 picks one")
	f.StringVar(&o.data, "data", "fnkit-data", "`directory` for database, code and keys")
	f.Var(&o.projects, "project", "`id` of a project; may be repeated")
	f.Var(&keys, "key", "API key, as `[project:]secret[=scope,scope…]`; may be repeated. Others can see the command line: prefer -key-file")
	f.Var(&keyFiles, "key-file", "`file` with one key a line, in the form of -key; may be repeated")
	f.Var(&users, "user", "user and token, as `[project:]id=token[=role,role…]`; may be repeated")
	f.Var(&userFiles, "user-file", "`file` with one user a line, in the form of -user; may be repeated")
	f.Var(&o.runtimes, "runtime", "`id` of a runtime to allow; may be repeated (default: all that are found)")
	f.StringVar(&o.isolation, "isolation", "none", "least isolation to accept, a `level`: none, restricted, userns or full")
	f.StringVar(&o.confine, "confine", "full", "isolation to aim for, a `level` as for -isolation; what the machine lacks is replaced by the next lower")
	f.StringVar(&o.endpoint, "endpoint", "", "`URL` of the API that functions are told (default: from -addr)")
	f.DurationVar(&o.lease, "lease", 30*time.Second, "after this long without a sign of life work goes to another worker")
	f.DurationVar(&o.drain, "drain", 30*time.Second, "how long running work may take to end at shutdown")
	f.DurationVar(&o.sync, "sync-timeout", 30*time.Second, "how long a synchronous caller waits")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long an idle instance stays")
	f.IntVar(&o.instances, "instances", 0, "instances at once in all (default: 16 for each CPU)")
	f.BoolVar(&o.proxy, "trust-proxy", false, "take a client's address from X-Forwarded-For")
	if err := parse(f, args, out); err != nil {
		return o, err
	}
	err := o.readKeys(keys, keyFiles)
	if err == nil {
		err = o.readUsers(users, userFiles)
	}
	if err == nil {
		err = o.check()
	}
	return o, err
}

// parse reads flags that no argument follows. Mistakes are said once, by the
// error, which holds no argument: it may be a secret in the wrong place.
func parse(f *flag.FlagSet, args []string, help io.Writer) error {
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(help, "Usage: %s [flags]\n", f.Name())
		f.SetOutput(help)
		f.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", err, errUsage)
	case f.NArg() > 0:
		return fmt.Errorf("%s takes flags only, and argument %d is none: %w", f.Name(), len(args)-f.NArg()+1, errUsage)
	}
	return nil
}

func (o *options) check() error {
	if len(o.projects) == 0 {
		o.projects = list{"demo"}
	}
	for _, p := range o.projects {
		if err := engine.CheckProject(p); err != nil || p == "console" {
			return fmt.Errorf("%q cannot be the id of a project: %w", p, errUsage)
		}
	}
	if len(o.keys)+len(o.users) == 0 {
		return fmt.Errorf("nobody could use the server: give a -key or -key-file: %w", errUsage)
	}
	if err := o.checkKeys(); err != nil {
		return err
	}
	return o.checkUsers()
}

func (o *options) checkKeys() error {
	for i, k := range o.keys {
		if !o.has(k.Project) {
			return fmt.Errorf("a key names the project %q, which no -project does: %w", k.Project, errUsage)
		}
		for _, other := range o.keys[:i] {
			if k.Secret == other.Secret && overlap(k.Project, other.Project) {
				return fmt.Errorf("a key is given twice for a project, and which scopes it has is not clear: %w", errUsage)
			}
		}
	}
	return nil
}

func (o *options) checkUsers() error {
	for i, u := range o.users {
		if !o.has(u.Project) {
			return fmt.Errorf("the user %q is of the project %q, which no -project names: %w", u.ID, u.Project, errUsage)
		}
		for _, other := range o.users[:i] {
			if (u.ID == other.ID || u.Token == other.Token) && overlap(u.Project, other.Project) {
				return fmt.Errorf("the users %q and %q have one id or one token in the same project: %w", other.ID, u.ID, errUsage)
			}
		}
	}
	return nil
}

// has reports whether a project is served; an empty one stands for all.
func (o *options) has(project string) bool {
	return project == "" || slices.Contains(o.projects, project)
}

// overlap reports whether two keys or users meet in a project.
func overlap(a, b string) bool { return a == b || a == "" || b == "" }

var allScopes = []string{engine.ScopeFunctionsRead, engine.ScopeFunctionsWrite, engine.ScopeExecutionRead, engine.ScopeExecutionWrite}

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
		if secret == "" || strings.HasPrefix(secret, "dynamic_") {
			return fmt.Errorf("a key is empty or begins with dynamic_: %w", errUsage)
		}
		k := httpapi.Key{Project: project, Secret: secret}
		if scoped {
			k.Scopes = strings.Split(scopes, ",")
		}
		for _, scope := range k.Scopes {
			if !slices.Contains(allScopes, scope) {
				return fmt.Errorf("what follows = in a key are not scopes (%s); a key holds neither = nor : itself: %w", strings.Join(allScopes, ", "), errUsage)
			}
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
		if err := engine.CheckID(id); err != nil {
			return fmt.Errorf("%q cannot be the id of a user: %w", id, errUsage)
		}
		u := httpapi.User{Project: project, ID: id, Token: parts[1]}
		if len(parts) == 3 {
			u.Roles = strings.Split(parts[2], ",")
		}
		if slices.ContainsFunc(u.Roles, notGiven) || engine.CheckRoles(u.Roles) != nil {
			return fmt.Errorf("what follows the token of user %q are not roles such as team:red, member:m1 or label:vip; a token does not hold = itself: %w", id, errUsage)
		}
		o.users = append(o.users, u)
	}
	return nil
}

// notGiven reports whether a role is none that a user is given; the others
// come from who the user is.
func notGiven(role string) bool {
	kind, _, _ := strings.Cut(role, ":")
	return !slices.Contains([]string{"team", "member", "label"}, kind)
}

// withLines adds the lines of files to values; empty lines and those that
// begin with "#" are left out.
func withLines(values, files list) (list, error) {
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				values = append(values, line)
			}
		}
	}
	return values, nil
}
