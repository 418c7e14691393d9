package httpapi

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// The models of the wire: every field is always there, in this order.

func functionModel(f engine.Function, vars []engine.Variable) object {
	return object{
		{"$id", f.ID}, {"$createdAt", date(f.CreatedAt)}, {"$updatedAt", date(f.UpdatedAt)},
		{"execute", f.Execute}, {"name", f.Name}, {"enabled", f.Enabled}, {"live", f.Live}, {"logging", f.Logging},
		{"runtime", f.Runtime}, {"deployment", f.Deployment}, {"scopes", f.Scopes}, {"vars", each(vars, variableModel)},
		{"events", f.Events}, {"schedule", f.Schedule}, {"timeout", f.Timeout},
		{"entrypoint", f.Entrypoint}, {"commands", f.Commands}, {"version", "v4"},
		{"installationId", f.InstallationID}, {"providerRepositoryId", f.ProviderRepositoryID},
		{"providerBranch", f.ProviderBranch}, {"providerRootDirectory", f.ProviderRootDirectory},
		{"providerSilentMode", f.ProviderSilentMode}, {"specification", f.Specification}, {"fnkit", functionExtension(f)},
	}
}

// functionExtension is what the reference does not have.
func functionExtension(f engine.Function) object {
	return object{
		{"timeZone", cmp.Or(f.Policy.TimeZone, "UTC")}, {"catchUp", string(cmp.Or(f.Policy.CatchUp, engine.CatchUpOnce))},
		{"retry", retryModel(f.Policy.Retry)}, {"priority", f.Policy.Priority},
		{"concurrency", f.Policy.Concurrency}, {"laneConcurrency", f.Policy.LaneConcurrency}, {"rate", rateModel(f.Policy.Rate)}, {"laneRate", rateModel(f.Policy.LaneRate)},
		{"network", f.Policy.Network},
		{"nextRunAt", date(f.NextRunAt)}, {"lastRunAt", date(f.LastRunAt)},
	}
}

// retryModel shows what a retry policy does, defaults included.
func retryModel(r engine.Retry) object {
	r = engine.RetryDefaults(r)
	on := make([]string, len(r.On))
	for i, f := range r.On {
		on[i] = string(f)
	}
	return object{{"attempts", r.Attempts}, {"backoff", r.Backoff}, {"maxBackoff", r.MaxBackoff}, {"on", on}}
}

func rateModel(r engine.Rate) any {
	if r.Limit == 0 {
		return nil
	}
	return object{{"limit", r.Limit}, {"period", r.Period}}
}

// deploymentModel has two fields more than the reference: how many parts of an
// upload there are and have arrived.
func deploymentModel(d engine.Deployment) object {
	status := string(d.Status)
	if status == "uploading" {
		status = ""
	}
	chunks := max(d.ChunksTotal, 1)
	uploaded := chunks
	if status == "" {
		uploaded = len(d.Chunks)
	}
	return object{
		{"$id", d.ID}, {"$createdAt", date(d.CreatedAt)}, {"$updatedAt", date(d.UpdatedAt)},
		{"type", d.Type}, {"resourceId", d.FunctionID}, {"resourceType", "functions"},
		{"entrypoint", d.Entrypoint}, {"size", d.Size}, {"buildSize", d.BuildSize}, {"buildId", d.BuildID},
		{"activate", d.Activate}, {"status", status}, {"buildLogs", d.BuildLogs}, {"buildTime", buildSeconds(d)},
		{"providerRepositoryName", ""}, {"providerRepositoryOwner", ""}, {"providerRepositoryUrl", ""}, {"providerBranch", ""},
		{"providerCommitHash", ""}, {"providerCommitAuthorUrl", ""}, {"providerCommitAuthor", ""},
		{"providerCommitMessage", ""}, {"providerCommitUrl", ""}, {"providerBranchUrl", ""},
		{"chunksTotal", chunks}, {"chunksUploaded", uploaded},
	}
}

func buildModel(d engine.Deployment) object {
	return object{
		{"$id", d.BuildID}, {"deploymentId", d.ID}, {"status", string(d.Status)}, {"stdout", d.BuildLogs}, {"stderr", ""},
		{"startTime", date(d.BuildStarted)}, {"endTime", date(d.BuildEnded)}, {"duration", buildSeconds(d)}, {"size", d.BuildSize},
	}
}

// buildSeconds is how long a build took, in seconds begun; 0 until it has ended.
func buildSeconds(d engine.Deployment) int {
	if d.BuildStarted.IsZero() || d.BuildEnded.IsZero() {
		return 0
	}
	return int(math.Ceil(d.BuildEnded.Sub(d.BuildStarted).Seconds()))
}

func executionModel(e engine.Execution) object {
	var permissions []string
	if e.UserID != "" {
		permissions = []string{`read("user:` + e.UserID + `")`}
	}
	var scheduledAt any
	if !e.ScheduledAt.IsZero() {
		scheduledAt = date(e.ScheduledAt)
	}
	status := string(e.Status)
	if slices.Contains(alsoFailed, status) {
		status = "failed" // clients know no other word; see fnkit
	}
	return object{
		{"$id", e.ID}, {"$createdAt", date(e.CreatedAt)}, {"$updatedAt", date(e.UpdatedAt)}, {"$permissions", permissions},
		{"functionId", e.FunctionID}, {"trigger", string(e.Trigger)}, {"status", status},
		{"requestMethod", e.RequestMethod}, {"requestPath", e.RequestPath}, {"requestHeaders", each(e.RequestHeaders, headerModel)},
		{"responseStatusCode", e.ResponseStatusCode}, {"responseBody", ""}, {"responseHeaders", each(e.ResponseHeaders, headerModel)},
		{"logs", e.Logs}, {"errors", e.Errors}, {"duration", e.Duration.Seconds()}, {"scheduledAt", scheduledAt},
		{"fnkit", executionExtension(e)},
	}
}

// alsoFailed are the statuses that are "failed" for clients that do not know them.
var alsoFailed = []string{"canceled", "dead"}

func executionExtension(e engine.Execution) object {
	var next time.Time
	if e.Status == "waiting" && e.Tries > 0 {
		next = e.ReadyAt
	}
	return object{{"status", string(e.Status)}, {"attempt", e.Attempt}, {"failures", e.Tries}, {"nextAttemptAt", date(next)}, {"lane", e.Lane}, {"priority", e.Priority}}
}

func headerModel(h engine.Header) object { return object{{"name", h.Name}, {"value", h.Value}} }

func variableModel(v engine.Variable) object {
	return object{
		{"$id", v.ID}, {"$createdAt", date(v.CreatedAt)}, {"$updatedAt", date(v.UpdatedAt)},
		{"key", v.Key}, {"value", v.Value}, {"resourceType", "function"}, {"resourceId", v.FunctionID},
	}
}

func runtimeModel(r engine.Runtime) object {
	return object{
		{"$id", r.ID}, {"key", r.Key}, {"name", r.Name}, {"version", r.Version},
		{"base", r.Base}, {"image", r.Image}, {"logo", r.Logo}, {"supports", r.Supports},
	}
}

func specificationModel(s engine.Specification) object {
	return object{{"memory", s.Memory}, {"cpus", s.CPUs}, {"enabled", true}, {"slug", s.Slug}}
}

func each[T any](list []T, model func(T) object) []object {
	out := make([]object, len(list))
	for i, v := range list {
		out[i] = model(v)
	}
	return out
}

// date is the form of all dates; empty for none.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000-07:00")
}
