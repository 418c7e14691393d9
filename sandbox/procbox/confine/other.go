//go:build !linux || !(amd64 || arm64)

package confine

import (
	"context"
	"errors"
	"os/exec"

	"github.com/fnkit/fnkit/sandbox"
)

// Host confines nothing here.
type Host struct{ asked bool }

// Open returns a Host without isolation.
func Open(_ context.Context, cfg Config) (*Host, error) {
	return &Host{cfg.Most > sandbox.IsolationNone}, nil
}

func (h *Host) Isolation() sandbox.Isolation { return sandbox.IsolationNone }

func (h *Host) Namespaces() bool { return false }

func (h *Host) ShowsLate() bool { return false }

func (h *Host) Limits() []string { return nil }

func (h *Host) Notes() []string {
	if h.asked {
		return []string{"isolation: none, since it needs Linux on amd64 or arm64"}
	}
	return nil
}

func (h *Host) Close() error { return nil }

// Cell is never made here.
type Cell struct{}

func (h *Host) Confine(*exec.Cmd, Plan) (*Cell, error) { return nil, errors.ErrUnsupported }

func (c *Cell) Start() error { return errors.ErrUnsupported }

func (c *Cell) Complete(context.Context, Late) error { return errors.ErrUnsupported }

func (c *Cell) Kill()           {}
func (c *Cell) Failure() string { return "" }
func (c *Cell) Hits() Hits      { return Hits{} }
func (c *Cell) Close() error    { return nil }
