package main

// Main is the program, for the tests, which run it in processes of its own.
var Main = main
