// Package lockfile tells whether the owner of a directory lives: it holds a
// lock on a file in it for as long.
package lockfile

import "errors"

// ErrHeld: another owner, of this process or another, holds the lock.
var ErrHeld = errors.New("in use by another owner that lives")
