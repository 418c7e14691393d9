package httpapi

import (
	"net/http"

	"github.com/fnkit/fnkit/engine"
)

func (a *API) listVariables(c *call) error {
	function := c.in.id("functionId")
	if c.in.err != nil {
		return c.in.err
	}
	list, err := c.p.ListVariables(c.r.Context(), c.by, function)
	if err != nil {
		return err
	}
	return c.list("variables", list.Total, each(list.Items, func(v engine.Variable) object { return c.format.variable(variableModel(v)) }))
}

// variable answers with one variable.
func (c *call) variable(status int, v engine.Variable, err error) error {
	if err != nil {
		return err
	}
	return c.json(status, c.format.variable(variableModel(v)))
}

func (a *API) createVariable(c *call) error {
	function := c.in.id("functionId")
	key := c.in.mustText("key", engine.CheckKey)
	value := c.in.mustText("value", between(0, engine.MaxValue))
	if c.in.err != nil {
		return c.in.err
	}
	v, err := c.p.CreateVariable(c.r.Context(), c.by, function, key, value)
	return c.variable(http.StatusCreated, v, err)
}

func (a *API) getVariable(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("variableId")
	if c.in.err != nil {
		return c.in.err
	}
	v, err := c.p.GetVariable(c.r.Context(), c.by, function, id)
	return c.variable(http.StatusOK, v, err)
}

func (a *API) updateVariable(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("variableId")
	key := c.in.mustText("key", engine.CheckKey)
	var value *string
	if s := c.in.text("value", between(0, engine.MaxValue)); c.in.values["value"] != nil {
		value = &s
	}
	if c.in.err != nil {
		return c.in.err
	}
	v, err := c.p.UpdateVariable(c.r.Context(), c.by, function, id, key, value)
	return c.variable(http.StatusOK, v, err)
}

func (a *API) deleteVariable(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("variableId")
	if c.in.err != nil {
		return c.in.err
	}
	if err := c.p.DeleteVariable(c.r.Context(), c.by, function, id); err != nil {
		return err
	}
	return c.noContent()
}
