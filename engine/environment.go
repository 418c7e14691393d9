package engine

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// environment is the whole environment of a function's code: the project's
// variables, the function's, and what the engine says, each over the one before.
func (e *Engine) environment(ctx context.Context, k *known) (map[string]string, error) {
	env := maps.Clone(k.shared)
	if env == nil {
		env = map[string]string{}
	}
	own, err := e.store.ListVariables(ctx, k.fn.Project, []string{k.fn.ID}, e.cfg.Limits.Variables)
	if err != nil {
		return nil, fail(err, "")
	}
	for _, v := range own {
		plain, err := e.secrets.ring.Open(v.Sealed, variableIdentity(v.Project, v.FunctionID, v.ID))
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.ID, err)
		}
		env[v.Key] = string(plain)
	}
	maps.Copy(env, e.reserved(k))
	return env, nil
}

// projectVariables are those the host has all functions of a project share.
func (e *Engine) projectVariables(ctx context.Context, project string) (map[string]string, error) {
	hook := e.cfg.Hooks.ProjectVariables
	if hook == nil {
		return nil, nil
	}
	shared, err := hook(ctx, project)
	if err != nil {
		return nil, fmt.Errorf("project variables: %w", err)
	}
	return maps.Clone(shared), nil
}

// reserved are the variables that tell a function about itself.
func (e *Engine) reserved(k *known) map[string]string {
	id := e.cfg.Identity
	env := map[string]string{
		"APPWRITE_FUNCTION_API_ENDPOINT":    id.Endpoint,
		"APPWRITE_FUNCTION_ID":              k.fn.ID,
		"APPWRITE_FUNCTION_NAME":            k.fn.Name,
		"APPWRITE_FUNCTION_DEPLOYMENT":      k.dep.ID,
		"APPWRITE_FUNCTION_PROJECT_ID":      k.fn.Project,
		"APPWRITE_FUNCTION_RUNTIME_NAME":    k.rt.Name,
		"APPWRITE_FUNCTION_RUNTIME_VERSION": k.rt.Version,
		"APPWRITE_FUNCTION_CPUS":            strconv.FormatFloat(k.spec.CPUs, 'f', -1, 64),
		"APPWRITE_FUNCTION_MEMORY":          strconv.Itoa(k.spec.Memory),
		"APPWRITE_VERSION":                  id.Version,
		"APPWRITE_REGION":                   id.Region,
		"APPWRITE_DEPLOYMENT_TYPE":          k.dep.Type,
		"OPEN_RUNTIMES_ENTRYPOINT":          k.dep.Entrypoint,
		"OPEN_RUNTIMES_HOSTNAME":            id.Host,
		"INERNAL_EXECUTOR_HOSTNAME":         id.Host, // the reference's spelling
		"OPEN_RUNTIMES_CPUS":                strconv.FormatFloat(k.spec.CPUs, 'f', -1, 64),
		"OPEN_RUNTIMES_MEMORY":              strconv.Itoa(k.spec.Memory),
	}
	for name := range strings.FieldsSeq("REPOSITORY_ID REPOSITORY_NAME REPOSITORY_OWNER REPOSITORY_URL REPOSITORY_BRANCH " +
		"REPOSITORY_BRANCH_URL COMMIT_HASH COMMIT_MESSAGE COMMIT_URL COMMIT_AUTHOR_NAME COMMIT_AUTHOR_URL ROOT_DIRECTORY") {
		env["APPWRITE_VCS_"+name] = ""
	}
	env["APPWRITE_VCS_REPOSITORY_ID"] = k.fn.ProviderRepositoryID
	env["APPWRITE_VCS_REPOSITORY_BRANCH"] = k.fn.ProviderBranch
	env["APPWRITE_VCS_ROOT_DIRECTORY"] = k.fn.ProviderRootDirectory
	return env
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
