// Package clienttest drives a running "fnkit serve" with the official clients:
// the SDKs for Go, Node.js and the web, and the command line tool. It is a
// module of its own, so that they never enter the module graph of a host.
//
// Each test starts a server of its own on a fresh directory. The JavaScript
// clients are installed from js/package-lock.json into a temporary directory.
package clienttest
