//go:build !unix

package archive

import "errors"

// diskTrouble reports whether an error is the machine's and not the archive's.
// Where errors cannot be told apart, only a bad name is the archive's.
func diskTrouble(err error) bool {
	var name interface{ Timeout() bool }
	return errors.As(err, &name) && name.Timeout()
}
