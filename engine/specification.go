package engine

import (
	"fmt"
	"strings"
)

// Specification is a size of instance.
type Specification struct {
	Slug   string
	CPUs   float64
	Memory int // MB
}

// DefaultSpecification is the size of a function that asks for none.
const DefaultSpecification = "s-1vcpu-512mb"

var specifications = []Specification{
	{"s-0.5vcpu-512mb", 0.5, 512},
	{"s-1vcpu-512mb", 1, 512},
	{"s-1vcpu-1gb", 1, 1024},
	{"s-2vcpu-2gb", 2, 2048},
	{"s-2vcpu-4gb", 2, 4096},
	{"s-4vcpu-4gb", 4, 4096},
	{"s-4vcpu-8gb", 4, 8192},
	{"s-8vcpu-4gb", 8, 4096},
	{"s-8vcpu-8gb", 8, 8192},
}

// specification returns the size of a slug, the smallest for one that is unknown.
func specification(slug string) Specification {
	for _, s := range specifications {
		if s.Slug == slug {
			return s
		}
	}
	return specifications[0]
}

// allowedSpecifications are those within the caps.
func (l Limits) allowedSpecifications() []Specification {
	var out []Specification
	for _, s := range specifications {
		if (l.CPUs == 0 || s.CPUs <= l.CPUs) && (l.Memory == 0 || s.Memory <= l.Memory) {
			out = append(out, s)
		}
	}
	return out
}

// CheckSpecification is the rule of a specification's slug; empty and the
// default always pass.
func (e *Engine) CheckSpecification(slug string) error {
	if slug == "" || slug == DefaultSpecification {
		return nil
	}
	var slugs []string
	for _, s := range e.cfg.Limits.allowedSpecifications() {
		if s.Slug == slug {
			return nil
		}
		slugs = append(slugs, s.Slug)
	}
	return fmt.Errorf("Specification must be one of: %s", strings.Join(slugs, ", "))
}
