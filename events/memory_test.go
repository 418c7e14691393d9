package events_test

import (
	"testing"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/events/eventstest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	eventstest.Run(t, func(*testing.T) events.Bus { return events.NewMemory() })
}
