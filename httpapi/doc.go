// Package httpapi speaks the wire protocol of Appwrite Functions 1.6.2 on top
// of an [engine.Engine]: routes, parameters, queries, models, errors, uploads,
// downloads and CORS. It knows HTTP and decides nothing: scopes, roles, limits
// and rules are the engine's.
//
// [New] returns the API as a handler to mount at "/v1/"; [Options.Identify]
// says who calls, and [Keys] is a ready-made identity. [FunctionHandler] serves
// one function for any request, streaming its answer.
//
// The API describes itself at /v1/openapi.json.
package httpapi
