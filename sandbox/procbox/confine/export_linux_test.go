//go:build amd64 || arm64

package confine

import (
	"os"

	"golang.org/x/sys/unix"
)

// For the tests of each wall alone.

// Without takes walls away from what is confined from now on.
func (h *Host) Without(filter, landlock bool) { h.without = walls{filter, landlock} }

// Landlock is the version of this kernel's.
func (h *Host) Landlock() int { return h.landlock }

// Image is the program in sealed memory.
func (h *Host) Image() *os.File { return h.image }

// Init is the program of this architecture.
func Init() []byte { return initProgram }

// Groups are the directories in which resource groups are made.
func (h *Host) Groups() (dirs []string) {
	if h.groups != nil {
		for _, g := range h.groups.hierarchies {
			dirs = append(dirs, g.dir)
		}
	}
	return dirs
}

// Filter is the filter of system calls.
func Filter(namespaces, network, metadata bool) []unix.SockFilter {
	return filterFor{namespaces, network, metadata}.compile()
}

const AuditArch = auditArch

// WithoutGroups makes no resource groups from now on.
func (h *Host) WithoutGroups() error {
	g := h.groups
	h.groups = nil
	if g == nil {
		return nil
	}
	return g.close()
}
