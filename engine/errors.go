package engine

import (
	"errors"
	"fmt"

	"github.com/fnkit/fnkit/store"
)

// Error is what a use case answers when it refuses or fails: something a
// caller may be told. Any other error is internal: its text is for the log.
type Error struct {
	Kind    Kind
	Type    string // one of the Type constants
	Message string // one or more sentences, for people
	cause   error  // for the log
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns what lies behind the error, for the log and not for callers.
func (e *Error) Unwrap() error { return e.cause }

// Kind sorts errors by what the caller can do about them.
type Kind int

const (
	Internal     Kind = iota // a defect or a broken part; nothing the caller can do
	Invalid                  // the request is wrong
	Unauthorized             // the caller may not do this, or is unknown
	Forbidden                // the request is understood and refused
	NotFound                 // no such thing in this project
	Timeout                  // it took too long
	Conflict                 // such a thing exists already
	Range                    // the part asked for does not exist
	Busy                     // a limit is reached; the same call may succeed later
	Unavailable              // a part the engine needs does not answer
)

// Types of errors. They are the wire's identifiers.
const (
	TypeArgument         = "general_argument_invalid"
	TypeBadRequest       = "general_bad_request"
	TypeQuery            = "general_query_invalid"
	TypeCursor           = "general_cursor_not_found"
	TypeCursorNull       = "database_query_order_null"
	TypeScope            = "general_unauthorized_scope"
	TypeUnauthorized     = "user_unauthorized"
	TypeAccess           = "general_access_forbidden"
	TypeProject          = "project_not_found"
	TypeRateLimit        = "general_rate_limit_exceeded"
	TypeUnavailable      = "general_service_unavailable"
	TypeServer           = "general_server_error"
	TypeFunction         = "function_not_found"
	TypeFunctionExists   = "document_already_exists"
	TypeRuntime          = "function_runtime_unsupported"
	TypeEntrypoint       = "function_entrypoint_missing"
	TypeSyncTimeout      = "function_synchronous_timeout"
	TypeTemplate         = "function_template_not_found"
	TypeInstallation     = "installation_not_found"
	TypeBusy             = "function_busy"
	TypeDeployment       = "deployment_not_found"
	TypeBuild            = "build_not_found"
	TypeBuildNotReady    = "build_not_ready"
	TypeBuildCompleted   = "build_already_completed"
	TypeExecution        = "execution_not_found"
	TypeExecutionOngoing = "execution_in_progress"
	TypeExecutionEnded   = "execution_already_completed"
	TypeExecutionAlive   = "execution_not_dead"
	TypeKeyReused        = "execution_key_reused"
	TypeVariable         = "variable_not_found"
	TypeVariableExists   = "variable_already_exists"
	TypeFileEmpty        = "storage_file_empty"
	TypeFileType         = "storage_file_type_unsupported"
	TypeFileSize         = "storage_invalid_file_size"
	TypeFile             = "storage_invalid_file"
	TypeContentRange     = "storage_invalid_content_range"
	TypeRange            = "storage_invalid_range"
)

// errorTypes is the one table of types: their kind and their usual message.
var errorTypes = map[string]struct {
	kind    Kind
	message string
}{
	TypeArgument:         {Invalid, "The request contains one or more invalid arguments."},
	TypeBadRequest:       {Invalid, "There was an error processing your request. Please check the inputs and try again."},
	TypeQuery:            {Invalid, "The query's syntax is invalid."},
	TypeCursor:           {Invalid, "The cursor is invalid: the record it names does not exist."},
	TypeCursorNull:       {Invalid, "The order attribute has a null value in the record the cursor names."},
	TypeScope:            {Unauthorized, "The current user or API key does not have the required scopes to access the requested resource."},
	TypeUnauthorized:     {Unauthorized, "The current user is not authorized to perform the requested action."},
	TypeAccess:           {Unauthorized, "Access to this resource is forbidden. Make sure the request names your project ID."},
	TypeProject:          {NotFound, "Project with the requested ID could not be found. Please check the value of the X-Appwrite-Project header to ensure the correct project ID is being used."},
	TypeRateLimit:        {Busy, "Rate limit for the current endpoint has been exceeded. Please try again after some time."},
	TypeUnavailable:      {Unavailable, "The service cannot store or read data at the moment. Please try again in a few seconds."},
	TypeServer:           {Internal, "Server Error"},
	TypeFunction:         {NotFound, "Function with the requested ID could not be found."},
	TypeFunctionExists:   {Conflict, "Document with the requested ID already exists. Try again with a different ID or use ID.unique() to generate a unique ID."},
	TypeRuntime:          {NotFound, "The requested runtime is either inactive or unsupported. Please check the runtimes this server lists."},
	TypeEntrypoint:       {NotFound, "Entrypoint for your function is missing. Please specify it when making deployment or update the entrypoint under your function's settings."},
	TypeSyncTimeout:      {Timeout, "Synchronous function execution timed out. Use asynchronous execution instead, or ensure the execution duration doesn't exceed the limit."},
	TypeTemplate:         {NotFound, "Function Template with the requested ID could not be found."},
	TypeInstallation:     {NotFound, "Installation with the requested ID could not be found. Check to see if the ID is correct, or create the installation."},
	TypeBusy:             {Busy, "The function is at its limit of concurrent or queued executions. Please try again after some time."},
	TypeDeployment:       {NotFound, "Deployment with the requested ID could not be found."},
	TypeBuild:            {NotFound, "Build with the requested ID could not be found."},
	TypeBuildNotReady:    {Invalid, "Build with the requested ID is building and not ready for execution."},
	TypeBuildCompleted:   {Invalid, "Build with the requested ID is already completed and cannot be canceled."},
	TypeExecution:        {NotFound, "Execution with the requested ID could not be found."},
	TypeExecutionOngoing: {Invalid, "Can't delete ongoing execution. Please wait for execution to finish before deleting it."},
	TypeExecutionEnded:   {Invalid, "The execution has ended already and cannot be canceled."},
	TypeExecutionAlive:   {Invalid, "The execution is no dead letter: only executions that failed for good, of functions with a retry policy, can be replayed."},
	TypeKeyReused:        {Conflict, "The idempotency key was used for another request. Please use a new one for each request."},
	TypeVariable:         {NotFound, "Variable with the requested ID could not be found."},
	TypeVariableExists:   {Conflict, "Variable with the same ID already exists in this function. Try again with a different key."},
	TypeFileEmpty:        {Invalid, "Empty file passed to the endpoint."},
	TypeFileType:         {Invalid, "The given file extension is not supported: the code must be a .tar.gz file."},
	TypeFileSize:         {Invalid, "The file size is either not valid or exceeds the maximum allowed size."},
	TypeFile:             {Forbidden, "The uploaded file is invalid. Please check the file and try again."},
	TypeContentRange:     {Invalid, "The content range is invalid. Please check the value of the Content-Range header."},
	TypeRange:            {Range, "The requested range is not satisfiable. Please check the value of the Range header."},
}

// Errorf returns the error of a type with a message of its own; an empty
// format gives the type's usual message.
func Errorf(typ, format string, args ...any) *Error {
	t, ok := errorTypes[typ]
	if !ok {
		t = errorTypes[TypeServer]
	}
	if format != "" {
		t.message = fmt.Sprintf(format, args...)
	}
	return &Error{Kind: t.kind, Type: typ, Message: t.message}
}

// InvalidParam returns the error for a parameter that breaks its rule.
func InvalidParam(name string, rule error) *Error {
	return Errorf(TypeArgument, "Invalid `%s` param: %s", name, rule)
}

// ErrorTypes returns every type of error with its kind.
func ErrorTypes() map[string]Kind {
	all := make(map[string]Kind, len(errorTypes))
	for typ, t := range errorTypes {
		all[typ] = t.kind
	}
	return all
}

// fail turns an error of the store into one of the contract: a missing record
// becomes the error of type notFound, a store that does not answer a 503.
// Others pass.
func fail(err error, notFound string) error {
	switch {
	case err == nil:
		return nil
	case notFound != "" && errors.Is(err, store.ErrNotFound):
		return Errorf(notFound, "")
	case errors.Is(err, store.ErrUnavailable):
		e := Errorf(TypeUnavailable, "")
		e.cause = err
		return e
	}
	return err
}
