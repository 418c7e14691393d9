package httpapi

import (
	"fmt"
	"strings"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// version is what X-Appwrite-Response-Format asks for. The zero version asks
// for the newest form.
type version [3]int

// parseVersion reads "a.b.c"; anything else is the zero version.
func parseVersion(s string) version {
	var v version
	if n, err := fmt.Sscanf(s, "%d.%d.%d", &v[0], &v[1], &v[2]); err != nil || n != 3 || v.String() != s {
		return version{}
	}
	return v
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// before reports whether a version older than 1.minor was asked for.
func (v version) before(minor int) bool {
	return v != version{} && (v[0] < 1 || v[0] == 1 && v[1] < minor)
}

// after reports whether a version newer than the server's was asked for.
func (v version) after(server version) bool {
	for i := range v {
		if v[i] != server[i] {
			return v[i] > server[i]
		}
	}
	return false
}

// The models as older clients know them, alone and in lists.

func (v version) function(f engine.Function, o object, now time.Time) object {
	if v.before(6) {
		o = o.drop("scopes", "specification")
	}
	if v.before(4) {
		previous, next := engine.ScheduleTimes(f, now)
		o = append(o, field{"schedulePrevious", date(previous)}, field{"scheduleNext", date(next)})
	}
	return o
}

func (v version) deployment(o object) object {
	if !v.before(4) {
		return o
	}
	o.set("size", o.get("size").(int64)+o.get("buildSize").(int64))
	o.rename("buildLogs", "buildStdout")
	return append(o.drop("buildSize"), field{"buildStderr", ""})
}

func (v version) execution(o object) object {
	if v.before(6) {
		o = o.drop("scheduledAt")
	}
	if !v.before(4) {
		return o
	}
	if code := o.get("responseStatusCode").(int); o.get("status") == "completed" && code >= 400 && code < 500 {
		o.set("status", "failed")
	}
	o.rename("responseStatusCode", "statusCode")
	o.rename("responseBody", "response")
	o.rename("logs", "stdout")
	o.rename("errors", "stderr")
	return o
}

func (v version) variable(o object) object {
	if v.before(4) {
		o.rename("resourceId", "functionId")
	}
	return o
}

func (v version) runtime(o object) object {
	if v.before(6) {
		o = o.drop("key")
	}
	return o
}

// The parameters of older clients, turned into today's.

func (v version) functionParams(p map[string]any) {
	if v.before(6) {
		p["templateVersion"] = p["templateBranch"]
	}
	if v.before(4) {
		runtime, _ := p["runtime"].(string)
		language, _, _ := strings.Cut(runtime, "-")
		p["commands"] = legacyCommands[language]
	}
}

func (v version) executionParams(p map[string]any) {
	if data, ok := p["data"]; ok && v.before(4) {
		p["body"] = data
	}
}

// legacyCommands are the build commands of the time when a client could not set them.
var legacyCommands = map[string]string{
	"node":   "npm install",
	"python": "pip install --no-cache-dir -r requirements.txt",
	"dart":   "dart pub get",
	"php":    "composer update --no-interaction --ignore-platform-reqs --optimize-autoloader --prefer-dist --no-dev",
	"ruby":   "bundle install",
	"swift":  "swift package resolve",
	"dotnet": "dotnet restore",
}
