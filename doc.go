// Package fnkit is an embeddable functions engine. People deploy code to it, it
// builds the code, keeps versions, and runs it on HTTP calls, in the
// background, on schedules and on events, with logs, variables and
// permissions; and all of it happens inside one Go program. This package holds
// only this text: the engine is package engine.
//
// # A program
//
//	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
//	if err != nil {
//		return err
//	}
//	eng, err := engine.New(engine.Config{
//		Store: db, Blobs: dirblobs.New(dir), Sandbox: box, Keys: engine.Key("k1", secret), MinIsolation: "none",
//	})
//	if err != nil {
//		return err
//	}
//	if err := eng.Start(ctx); err != nil {
//		return err
//	}
//	api, err := httpapi.New(eng, httpapi.Options{Identify: who})
//	mux.Handle("/v1/", api)
//
// box is a sandbox: package procbox runs Node, Python, PHP, Ruby and Go code as
// local processes, package fnbox a Go func as a function, for tests.
//
// # Packages
//
//	engine              the engine: functions, deployments, executions, schedules, variables
//	engine/enginetest   the engine in a test, with a clock that the test moves
//	httpapi             the wire protocol of Appwrite Functions, as an http.Handler
//	store               contract of what keeps the records
//	store/sqlstore      … in a SQL database through bun; sqlstore/sqlite opens a
//	                    file, sqlstore/postgres a database
//	store/dirblobs      … archives as files of a directory
//	sandbox             contract of what runs the code
//	sandbox/procbox     … as local processes
//	sandbox/pluginbox   … in another process, by any sandbox that is served there
//	sandbox/fnbox       … as a func of the host program
//	events              contract of what carries events, and the in-process bus
//	store/storetest, sandbox/sandboxtest, events/eventstest
//	                    the suites that every backend passes
//	cmd/fnkit           a small server on the public API
//
// # Delivery
//
// A synchronous execution runs at most once; its record is stored before the
// caller is answered. An asynchronous or scheduled one that was accepted runs
// at least once: it waits in a table, a worker holds it under a lease, and if
// the worker dies another takes it when the lease has ended. The same holds for
// builds. Each run of a cron schedule is accepted once, however many engines
// look; what was missed while none did is caught up as the function's policy
// says. An event of the host's queues its executions in one transaction, and an
// id that was triggered within the last day queues none. A function's policy says
// whether what failed is run again; what fails too often is a dead letter and can be
// replayed. With an idempotency key a call is made once and answered the same, as
// long as the key is remembered. Where nothing runs, synchronous calls can go through
// the table too, while their callers wait. What subscribers hear of is best effort; the
// tables are the truth.
//
// # Stability
//
// The module is before version 1: names may change. Tables are migrated
// forward by every version; two neighbouring versions can share a database,
// unless the changelog says otherwise.
package fnkit
