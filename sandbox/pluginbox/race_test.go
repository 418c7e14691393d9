//go:build race

package pluginbox_test

func init() { buildFlags = append(buildFlags, "-race") }
