// Package frame is the channel between the engine's process driver and the
// harness that runs user code: many calls over one inherited socket.
//
// # Frames
//
// Everything is little endian:
//
//	u32 length | u32 id | u8 type | u8 flags | payload
//
// length counts from id to the end of the payload and is at most 1 MiB; a longer or
// shorter-than-6 one, an unknown type from the harness, or anything else
// malformed ends the instance. flags: bit 0 (END) says that the sender has
// finished its direction of the call. Ids are chosen by the host, start at 1, and are
// never reused; id 0 is the channel itself. A frame for an id that is not known
// is a late one and is ignored.
//
//	type    #  direction  payload
//	CALL    1  host →     u16 head length, JSON head, first bytes of the body
//	HEAD    2  ← harness  u16 head length, JSON head, first bytes of the body
//	DATA    3  both       body bytes, at most 64 KiB; may be empty with END
//	WINDOW  4  both       u32 credit: this many more bytes may be sent
//	RESET   5  both       why, as text: the call is over for both sides at once
//	LOG     6  ← harness  u8 stream (1 stdout, 2 stderr), whole lines with "\n"
//	READY   7  ← harness  id 0; JSON Ready: the harness waits for BIND
//	BIND    8  host →     id 0; JSON Bind: which code to load, in what environment
//	BOUND   9  ← harness  id 0; JSON Bound: calls may come
//
// A small call is two frames, CALL|END and HEAD|END. Up to 64 KiB of body ride
// in CALL and HEAD; they do not count against the window. DATA does: each
// direction of each call starts with a credit of 256 KiB, and the receiver
// grants more with WINDOW when it has consumed half of it. Sending more than
// was granted is malformed. There is no window over all calls, so a slow reader
// of one never holds up another.
//
// All LOG frames of a call come before the frame that ends its response
// (HEAD|END, DATA|END or RESET). A payload never splits a line unless the line
// alone is longer than a frame.
//
// # JSON
//
// CALL head, in ASCII:
//
//	{"m":"POST",            method
//	 "p":"/a?b=c",          path with query
//	 "h":{"name":"value"},  headers, lower-case names, duplicates already joined
//	 "t":15000,             soft timeout in milliseconds; 0 or absent: none
//	 "l":1}                 logging on; 0 or absent: send no LOG frames
//
// HEAD head:
//
//	{"s":200,                  status code as the function gave it
//	 "h":[["name","value"]],   headers in order, lower-case names, repeated ones allowed
//	 "t":1,                    the soft timeout ended this call
//	 "r":1}                    user code of this call may still be running: retire the instance
//
// A harness whose worker process dies during a call (an exit, a fatal error)
// while the instance as a whole lives answers HEAD|END with status 500 after a LOG
// on stream 2 that says how it ended, or RESET when a head is out already.
//
// Ready: {"protocol":1,"version":"20.20.2"}.
// Bind: {"root":"/abs/dir","entrypoint":"src/main.js","env":{"K":"V"},"workers":8}.
// The harness applies env (and nothing else from its own environment reaches user
// code), changes directory to root, loads the entrypoint, and answers
// Bound: {"error":""}. error tells why the code could not be loaded; the
// instance serves nevertheless, and each call tries again and answers 503.
// workers is how many calls will be made at once at most.
//
// # Ends
//
// The harness exits when the channel closes. The host ends a call with RESET; a
// harness that can kill that call's code alone does, and confirms it with a RESET of
// its own for that id within 60 ms; otherwise it drops what the call still
// produces, and the host decides whether the process must die.
package frame
