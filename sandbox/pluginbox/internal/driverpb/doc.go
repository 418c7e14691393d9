// Package driverpb is the code that is made from driver.proto.
package driverpb

//go:generate go run -C ../../../../tools ./protogen ../sandbox/pluginbox/internal/driverpb driver.proto
