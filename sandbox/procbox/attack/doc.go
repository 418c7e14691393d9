// Package attack holds no code: its tests run hostile functions, in Python, in
// Node.js and as a static binary, at every tier of isolation that the machine has.
// An attack passes if it failed, nothing outside was harmed, and the next call works.
package attack
