package httpapi

import (
	"encoding/json"
	"fmt"

	"github.com/fnkit/fnkit/engine"
)

// EncodeRecord encodes a function, deployment or execution as the API shows
// it, in its newest form. It is made for engine.Hooks.Payload, so that events
// carry what clients know; a function's variables are left out.
func EncodeRecord(record any) (json.RawMessage, error) {
	switch r := record.(type) {
	case engine.Function:
		return appendJSON(nil, functionModel(r, nil)), nil
	case engine.Deployment:
		return appendJSON(nil, deploymentModel(r)), nil
	case engine.Execution:
		return appendJSON(nil, executionModel(r)), nil
	}
	return nil, fmt.Errorf("httpapi: a %T is no record of the API", record)
}
