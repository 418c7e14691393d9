// Package sandbox is the contract between the engine and whatever runs the
// code of functions: the Driver interface, what crosses it, the runtime
// catalogue and the errors. It imports only the standard library.
//
// A driver has mechanism and no policy: how many instances there are, who may
// call them, how long a call may take and what is done with its answer is the
// engine's business. Everything that crosses the interface can cross a process
// border. Package sandboxtest is the suite every driver passes.
//
// # Failures
//
// What user code does wrong is a [Result] or an ordinary response: an
// exception is a 500, code that cannot be loaded a 503, a process that exits a
// Result with Crash set. Only a failure of the machinery is an error.
package sandbox
