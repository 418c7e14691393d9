package clienttest_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/appwrite/sdk-for-go/functions"
	"github.com/appwrite/sdk-for-go/query"
)

// deployments lists the ids that queries find.
func (j *journey) deployments(total int, queries ...string) (ids []string) {
	j.t.Helper()
	list, err := j.fns.ListDeployments(j.id, j.fns.WithListDeploymentsQueries(queries))
	check(j.t, err)
	if list.Total != total {
		j.t.Errorf("%v count %d deployments, not %d", queries, list.Total, total)
	}
	for _, d := range list.Deployments {
		ids = append(ids, d.Id)
	}
	return ids
}

func (j *journey) listDeployments() {
	all := j.deployments(6)
	if len(all) != 6 {
		j.t.Fatalf("listed %v", all)
	}
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	same(j.t, j.deployments(6, query.OrderDesc("$createdAt")), backwards)
	same(j.t, j.deployments(6, query.OrderAsc("$createdAt"), query.CursorAfter(all[1]), query.Limit(2)), all[2:4])
	same(j.t, j.deployments(6, query.CursorBefore(all[3]), query.Limit(2)), all[1:3])
	same(j.t, j.deployments(6, query.Offset(4)), all[4:])
	same(j.t, j.deployments(2, query.GreaterThanEqual("size", big)), []string{all[1], all[5]})
	same(j.t, j.deployments(1, query.And([]string{query.GreaterThan("size", big), query.NotEqual("$id", all[1])})), all[5:])
	same(j.t, j.deployments(2, query.Or([]string{query.Equal("$id", all[0]), query.Equal("$id", all[2])})), []string{all[0], all[2]})
	_, err := j.fns.ListDeployments(j.id, j.fns.WithListDeploymentsQueries([]string{query.CursorAfter("nothing")}))
	j.refused(err, http.StatusBadRequest, "for the 'cursor' value not found")
}

// executions counts what queries find.
func (j *journey) executions(queries ...string) int {
	j.t.Helper()
	list, err := j.fns.ListExecutions(j.id, j.fns.WithListExecutionsQueries(queries))
	check(j.t, err)
	for _, x := range list.Executions {
		if x.FunctionId != j.id || x.ResponseBody != "" {
			j.t.Errorf("listed %+v", x)
		}
	}
	return list.Total
}

func (j *journey) listExecutions() {
	all := j.executions()
	for _, tc := range []struct {
		queries []string
		want    int
	}{
		{[]string{query.Equal("status", "failed")}, 1},
		{[]string{query.Equal("status", []interface{}{"failed", "completed"})}, all},
		{[]string{query.Equal("responseStatusCode", 418), query.Equal("status", "completed")}, 1},
		{[]string{query.GreaterThan("duration", 60.5), query.Limit(5)}, 0},
		{[]string{query.StartsWith("requestPath", "/a/")}, 1},
		{[]string{query.Equal("requestMethod", "PUT")}, 1},
		{[]string{query.Equal("trigger", "schedule")}, 0},
		{[]string{query.Between("responseStatusCode", 400, 499)}, 1},
	} {
		if got := j.executions(tc.queries...); got != tc.want {
			j.t.Errorf("%v count %d executions, not %d", tc.queries, got, tc.want)
		}
	}
	list, err := j.fns.ListExecutions(j.id, j.fns.WithListExecutionsQueries([]string{query.OrderDesc("$createdAt"), query.Limit(2)}))
	check(j.t, err)
	if len(list.Executions) != 2 || list.Executions[0].CreatedAt < list.Executions[1].CreatedAt || list.Executions[0].Logs != "trigger http\n" {
		j.t.Errorf("listed %+v", list)
	}
}

func (j *journey) listFunctions() {
	other, err := j.fns.Create("other-"+j.language, "Ødegård", j.runtime, j.fns.WithCreateEnabled(false))
	check(j.t, err)
	for _, tc := range []struct {
		option functions.ListOption
		want   []string
	}{
		{j.fns.WithListQueries(nil), []string{j.id, other.Id}},
		{j.fns.WithListQueries([]string{query.Equal("$id", j.id)}), []string{j.id}},
		{j.fns.WithListQueries([]string{query.Equal("name", "Ødegård"), query.Equal("enabled", false)}), []string{other.Id}},
		{j.fns.WithListQueries([]string{query.Equal("name", "Ødegård"), query.Equal("enabled", true)}), nil},
		{j.fns.WithListQueries([]string{query.Contains("name", "<more>")}), []string{j.id}},
		{j.fns.WithListSearch("journey"), []string{j.id}},
	} {
		list, err := j.fns.List(tc.option)
		check(j.t, err)
		var ids []string
		for _, f := range list.Functions {
			ids = append(ids, f.Id)
		}
		same(j.t, ids, tc.want)
		if list.Total != len(tc.want) {
			j.t.Errorf("counted %d functions, not %d", list.Total, len(tc.want))
		}
	}
	_, err = j.fns.List(j.fns.WithListQueries([]string{query.Equal("nothing", "x")}))
	j.refused(err, http.StatusBadRequest, "Attribute not found in schema: nothing")
}

func (j *journey) change() {
	f, err := j.fns.Update(j.id, "Renamed", j.fns.WithUpdateExecute([]string{"users"}), j.fns.WithUpdateEvents([]string{"users.*.create"}),
		j.fns.WithUpdateSchedule("0 5 * * 1"), j.fns.WithUpdateTimeout(30), j.fns.WithUpdateEnabled(false), j.fns.WithUpdateLogging(false))
	check(j.t, err)
	if f.Name != "Renamed" || f.Runtime != j.runtime || !slices.Equal(f.Execute, []string{"users"}) || !slices.Equal(f.Events, []string{"users.*.create"}) ||
		f.Schedule != "0 5 * * 1" || f.Timeout != 30 || f.Enabled || f.Logging || f.Entrypoint != j.entrypoint {
		j.t.Errorf("updated %+v", f)
	}
	if x := j.execute(); x.Logs != "" || x.Status != "completed" {
		j.t.Errorf("recorded %+v", x.Execution)
	}
	_, err = j.fns.Update(j.id, "Renamed", j.fns.WithUpdateSchedule("every day"))
	j.refused(err, http.StatusBadRequest, "Invalid `schedule` param")
}

func (j *journey) remove(variable, deployment string) {
	list, err := j.fns.ListExecutions(j.id, j.fns.WithListExecutionsQueries([]string{query.Limit(1)}))
	check(j.t, err)
	execution := list.Executions[0].Id
	for _, remove := range []func() (*interface{}, error){
		func() (*interface{}, error) { return j.fns.DeleteExecution(j.id, execution) },
		func() (*interface{}, error) { return j.fns.DeleteVariable(j.id, variable) },
		func() (*interface{}, error) { return j.fns.DeleteDeployment(j.id, deployment) },
		func() (*interface{}, error) { return j.fns.Delete(j.id) },
	} {
		_, err := remove()
		check(j.t, err)
		_, err = remove()
		j.refused(err, http.StatusNotFound, "could not be found")
	}
	_, err = j.fns.ListDeployments(j.id)
	j.refused(err, http.StatusNotFound, "could not be found")
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, not %v", got, want)
	}
}
