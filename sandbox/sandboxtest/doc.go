// Package sandboxtest is the suite every sandbox.Driver passes. A driver's test
// gives it a [Target]: the driver, and the source of one function that behaves as
// listed here. [Run] builds it once and then calls it in all the ways that matter.
//
// # The function
//
// One entry file that switches on the path of the request. Parameters come from
// the query. "log" is context.log, "error" context.error; text, json and so on
// are methods of context.res. JSON answers are compared as values, so key order
// and spaces do not matter.
//
//	/hello      json {"hello":"world"}
//	/echo       binary: the request's body bytes, header content-type as in the request
//	/request    json {"method","scheme","host","port","path","queryString","query","url",
//	            "headers","bodyText"}: what the request object gives for each
//	/body       json {"body": req.body}
//	/bodyjson   json {"body": req.bodyJson}; not JSON: the language's own exception goes through
//	            (where it is an error value, panic with it)
//	/text       text "téxt", 201, headers {"X-Custom":"Value"}
//	/binary     binary: the 256 bytes 0, 1, … 255
//	/json       json {"a":1,"b":"é","c":{"d":true}}
//	/empty      empty
//	/redirect   redirect "https://example.org/a"
//	/found      redirect "https://example.org/b", 302, headers {"x-why":"moved"}
//	/send       send "sent", 202
//	/noreturn   returns nothing
//	/record     returns a record of its own with a body "own" and nothing else
//	/status     text "status" with status n
//	/type       text "typed", 200, headers {"Content-Type": the request's body text}
//	/cookies    text "cookies" with header "set-cookie" of two values "a=1" and "b=2"
//	/crlf       text "crlf" with header "x-bad" of value "a\r\nx-evil: 1"
//	/throw      log "before throw", then throws an exception with the text "thrown on purpose"
//	/env        json {"value": environment variable name, or null}
//	/environ    json: the whole environment as an object
//	/log        log "one", "two" (two arguments); error "three"; text "logged"
//	/logs       log "line 0" … "line n-1", one call each; text "logged"
//	/longlog    log 9000 times "x" in one call; text "logged"
//	/native     prints "native out" with a newline, the language's usual way; text "native"
//	/sleep      log "sleep start"; sleeps ms milliseconds as good code in the language
//	            does; log "sleep end"; text "slept"
//	/hang       log "hanging"; waits for ever, as good code does
//	/spin       log "spinning"; lets the harness write it (as good code does, 50 ms of sleep
//	            where needed); loops for ever without giving way
//	/exit       log "exiting", lets the harness write it, ends the process at once with
//	            status 3, past all handlers
//	/count      text: how often this path was called in this process, from 1
//	/big        text: mib MiB of "x"
//	/stream     a stream of n pieces "piece 0\n" …, each given by itself
//	/endless    a stream that gives pieces of 64 KiB of "x" for ever, and counts them under
//	            the name key, and when it is closed before its end
//	/given      text: how many pieces an endless stream has given under the name key
//	/waits      a stream that gives "piece\n" and then waits for ever
//	/alloc      takes and fills mib MiB of memory; text "allocated"
//	/closed     text: how many endless streams were closed
//	/breaks     a stream that gives "half" and then fails
//	/cwd        text: the current directory
//	/tmp        writes a file into the directory for temporary files; text: its absolute path
//	/child      starts "sleep 1000" in the background, detached from its own standard
//	            streams, and does not wait; text: its process id
//	/children   starts n processes "sleep 1000" one after another, then ends them all; text
//	            "started"; if one cannot be started, it ends the others, and the language's own
//	            exception goes through
//	/burn       loops until the process has used ms milliseconds of CPU time more; text "burned"
//	/fill       writes mib MiB, piece by piece, to a file in the directory for temporary files,
//	            and removes it; text "written"; if they cannot be written, the language's own
//	            exception goes through
//	/garbage    writes the 64 bytes 0xff to file descriptor 3, then waits for ever; where that
//	            cannot be written, text "no"
//	            any other path: text "not found", 404
//
// A language that has no such thing (no streams, no exceptions that way) leaves the
// path out and names it, without the slash, in [Target.Lacks].
//
// Beside the entry file lie others of the same extension that cannot be
// loaded, unless "load" is in Lacks: syntax.EXT (a syntax error), nomain.EXT
// (loads, but has no function), raises.EXT (throws "raised at load" while it
// is loaded), exits.EXT (prints "ended while it was loaded" on standard error and
// ends the process with status 3; "load-exits"). The suite also asks for missing.EXT, which
// does not exist.
//
// # What only the driver's test can do
//
// [Target.Missing] says what becomes of a test of a limit that the driver does not have.
// [Target.Open] opens further drivers, with what can be seen of them from outside.
// With it the suite checks that nothing is left of what has ended, and what happens
// when the process dies that owns the instances. Without it these tests are skipped.
package sandboxtest
