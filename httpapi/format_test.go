package httpapi_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// fields are the names of an object's fields, sorted.
func fields(o map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(o)), " ")
}

// without returns the words of a list but for some.
func without(list string, drop ...string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(list), func(w string) bool { return slices.Contains(drop, w) }), " ")
}

// Older clients get the models they know, alone and in lists.
func TestResponseFormats(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "notfound", "schedule", "0 0 1 1 *")
	execution := s.execute(t, fn).ok(201).id()
	deployment := s.get(t, "/functions/"+fn).text("deployment")
	variable := s.post(t, "/functions/"+fn+"/variables", map[string]any{"key": "K", "value": "v"}).ok(201).id()
	base := "/functions/" + fn
	for _, m := range []struct{ list, one, name string }{
		{"/functions", base, "functions"},
		{base + "/deployments", base + "/deployments/" + deployment, "deployments"},
		{base + "/executions", base + "/executions/" + execution, "executions"},
		{base + "/variables", base + "/variables/" + variable, "variables"},
		{"/functions/runtimes", "", "runtimes"},
	} {
		now := fields(s.get(t, m.list).ok(200).list(m.name)[0])
		for format, want := range map[string]string{"1.6.2": now, "1.5.0": older(m.name, now, 5), "1.4.0": older(m.name, now, 4), "1.3.9": older(m.name, now, 3), "0.9.0": older(m.name, now, 3), "x": now, "": now, "1.6": now} {
			c := s.with("X-Appwrite-Response-Format", format)
			if got := fields(c.get(t, m.list).ok(200).list(m.name)[0]); sorted(got) != sorted(want) {
				t.Errorf("%s, list of %s:\n got %s\nwant %s", format, m.name, got, want)
			}
			if m.one == "" {
				continue
			}
			if got := fields(c.get(t, m.one).ok(200).body); sorted(got) != sorted(want) {
				t.Errorf("%s, one of %s:\n got %s\nwant %s", format, m.name, got, want)
			}
		}
	}
	old := s.with("X-Appwrite-Response-Format", "1.3.0")
	if a := old.get(t, base+"/executions/"+execution); a.text("status") != "failed" || a.int("statusCode") != 404 {
		t.Errorf("a client error is a failure there: %s", a.raw)
	}
	d, before := s.get(t, base+"/deployments/"+deployment), old.get(t, base+"/deployments/"+deployment)
	if before.int("size") != d.int("size")+d.int("buildSize") || before.text("buildStdout") != d.text("buildLogs") {
		t.Errorf("got %s", before.raw)
	}
	if f := old.get(t, base); !strings.HasSuffix(f.text("scheduleNext"), "-01-01T00:00:00.000+00:00") || !strings.HasSuffix(f.text("schedulePrevious"), "-01-01T00:00:00.000+00:00") {
		t.Errorf("got %s", f.raw)
	}
}

func sorted(list string) string {
	words := strings.Fields(list)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// older is what a model's fields were in version 1.minor.
func older(name, fields string, minor int) string {
	switch name {
	case "functions":
		fields = without(fields, "scopes", "specification")
		if minor < 4 {
			fields += " scheduleNext schedulePrevious"
		}
	case "deployments":
		if minor < 4 {
			fields = without(fields, "buildLogs", "buildSize") + " buildStdout buildStderr"
		}
	case "executions":
		fields = without(fields, "scheduledAt")
		if minor < 4 {
			fields = without(fields, "responseStatusCode", "responseBody", "logs", "errors") + " statusCode response stdout stderr"
		}
	case "variables":
		if minor < 4 {
			fields = without(fields, "resourceId") + " functionId"
		}
	case "runtimes":
		fields = without(fields, "key")
	}
	return fields
}

// Older clients' parameters mean what they meant.
func TestRequestFormats(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	old := s.with("X-Appwrite-Response-Format", "1.3.0")
	body := map[string]any{"functionId": "old", "name": "n", "runtime": runtimeID, "commands": "ignored", "entrypoint": "mirror", "execute": []string{"any"}}
	if a := old.post(t, "/functions", body).ok(201); a.text("commands") != map[bool]string{true: "npm install"}[strings.HasPrefix(runtimeID, "node-")] {
		t.Errorf("got %s", a.raw)
	}
	s.deploy(t, "old")
	if a := old.post(t, "/functions/old/executions", map[string]any{"data": "hi"}).ok(201); a.text("response") != "hi" {
		t.Errorf("got %s", a.raw)
	}
	template := map[string]any{"functionId": "t", "name": "n", "runtime": runtimeID, "templateVersion": strings.Repeat("x", 200), "templateBranch": nil}
	s.with("X-Appwrite-Response-Format", "1.5.0").post(t, "/functions", template).ok(201)
	s.post(t, "/functions", template).ok(400).fails("general_argument_invalid")
}

func TestNewerClientIsWarned(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for format, warned := range map[string]bool{"1.6.2": false, "1.6.1": false, "1.6.3": true, "1.9.5": true, "2.0.0": true, "": false, "newest": false} {
		a := s.with("X-Appwrite-Response-Format", format).get(t, "/functions").ok(200)
		if got := a.header.Get("X-Appwrite-Warning") != ""; got != warned {
			t.Errorf("%s: warned %v", format, got)
		}
	}
}
