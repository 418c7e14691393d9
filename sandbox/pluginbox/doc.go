// Package pluginbox puts a process between a host and a [sandbox.Driver]: [Serve]
// serves any driver from a program of its own, a plugin, and [Open] starts that
// program and is the driver for the host.
//
// A fault of the driver then costs the host the calls under way, not its life, and
// the driver can be another's program, built with other modules or run with another
// environment. It costs each call two switches between processes and a message of gRPC in
// each direction (see BENCHMARKS.md).
//
// The two speak gRPC over a Unix socket in a private directory, with certificates
// made for each start (github.com/hashicorp/go-plugin). Nothing of the host's
// environment reaches the plugin but what [Config].Env says. Directories of
// builds and instances are shared: host and plugin run on one machine and see one
// file system.
//
// # What happens when one of them dies
//
// Calls under way get [sandbox.ErrGone] at once when the plugin ends, whatever
// the reason; it is started again for the next call. Its instances are gone with it: a
// driver ends what it left when it opens its state again, as procbox does. A plugin
// that does not answer is killed, see [Config].Ping. When the host dies the plugin
// closes its driver and ends.
package pluginbox
