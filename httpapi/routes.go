package httpapi

import "github.com/fnkit/fnkit/engine"

// route is one line of the API: what is asked, by whom it may be, and who answers.
type route struct {
	method    string
	pattern   string
	operation string // operationId in openapi.json
	scope     string // empty: open to everyone
	// body is how many bytes of a body are read as parameters; 0: the route
	// takes none from the body. uploadBody: the handler reads it.
	body   int64
	handle func(*call) error
}

const (
	smallBody  = 1 << 20
	uploadBody = -1
)

// routes is the API.
func (a *API) routes() []route {
	const (
		fn  = "/v1/functions/{functionId}"
		dep = fn + "/deployments/{deploymentId}"
		exe = fn + "/executions"
		vrb = fn + "/variables"

		read, write       = engine.ScopeFunctionsRead, engine.ScopeFunctionsWrite
		execRead, execute = engine.ScopeExecutionRead, engine.ScopeExecutionWrite
	)
	// The worst case of JSON is six bytes for one ("\u0000").
	executionBody := 6*int64(a.cfg.Limits.RequestBody) + smallBody

	return []route{
		{"GET", "/v1/functions", "functionsList", read, 0, a.listFunctions},
		{"POST", "/v1/functions", "functionsCreate", write, smallBody, a.createFunction},
		{"GET", "/v1/functions/runtimes", "functionsListRuntimes", read, 0, a.listRuntimes},
		{"GET", "/v1/functions/specifications", "functionsListSpecifications", read, 0, a.listSpecifications},
		{"GET", fn, "functionsGet", read, 0, a.getFunction},
		{"PUT", fn, "functionsUpdate", write, smallBody, a.updateFunction},
		{"DELETE", fn, "functionsDelete", write, 0, a.deleteFunction},

		{"GET", fn + "/deployments", "functionsListDeployments", read, 0, a.listDeployments},
		{"POST", fn + "/deployments", "functionsCreateDeployment", write, uploadBody, a.createDeployment},
		{"GET", dep, "functionsGetDeployment", read, 0, a.getDeployment},
		{"PATCH", dep, "functionsUpdateDeployment", write, 0, a.activateDeployment},
		{"DELETE", dep, "functionsDeleteDeployment", write, 0, a.deleteDeployment},
		{"POST", dep + "/build", "functionsCreateBuild", write, 0, a.rebuild},
		{"POST", dep + "/builds/{buildId}", "functionsCreateBuildAlias", write, 0, a.rebuild},
		{"PATCH", dep + "/build", "functionsUpdateDeploymentBuild", write, 0, a.cancelBuild},
		{"GET", dep + "/download", "functionsGetDeploymentDownload", read, 0, a.download},
		{"GET", dep + "/logs", "functionsFollowBuild", read, 0, a.followBuild},

		{"GET", exe, "functionsListExecutions", execRead, 0, a.listExecutions},
		{"POST", exe, "functionsCreateExecution", execute, executionBody, a.createExecution},
		{"GET", exe + "/{executionId}", "functionsGetExecution", execRead, 0, a.getExecution},
		{"DELETE", exe + "/{executionId}", "functionsDeleteExecution", execute, 0, a.deleteExecution},
		{"POST", exe + "/{executionId}/cancel", "functionsCancelExecution", execute, 0, a.cancelExecution},
		{"GET", exe + "/{executionId}/logs", "functionsFollowExecution", execRead, 0, a.followExecution},
		{"POST", exe + "/{executionId}/replay", "functionsReplayExecution", execute, 0, a.replayExecution},

		{"GET", vrb, "functionsListVariables", read, 0, a.listVariables},
		{"POST", vrb, "functionsCreateVariable", write, smallBody, a.createVariable},
		{"GET", vrb + "/{variableId}", "functionsGetVariable", read, 0, a.getVariable},
		{"PUT", vrb + "/{variableId}", "functionsUpdateVariable", write, smallBody, a.updateVariable},
		{"DELETE", vrb + "/{variableId}", "functionsDeleteVariable", write, 0, a.deleteVariable},

		{"GET", "/v1/health", "healthGet", "", 0, a.health},
		{"GET", "/v1/health/version", "healthGetVersion", "", 0, a.version},
		{"GET", "/v1/proxy/rules", "proxyListRules", "", 0, a.listRules},
		{"GET", "/v1/openapi.json", "openapi", "", 0, a.openAPI},
	}
}
