package main

// For the tests, which run the command in their own process and in others.
var (
	Main     = main
	Run      = run
	ExitCode = exitCode
	StatusOf = statusOf
)

// MaxStatus is how much of an answer of a server's doctor reads.
const MaxStatus = maxStatus
