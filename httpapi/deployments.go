package httpapi

import (
	"net/http"

	"github.com/fnkit/fnkit/engine"
)

func (a *API) listDeployments(c *call) error {
	function := c.in.id("functionId")
	q := c.in.query(engine.DeploymentAttrs(), c.format)
	if c.in.err != nil {
		return c.in.err
	}
	list, err := c.p.ListDeployments(c.r.Context(), c.by, function, q)
	if err != nil {
		return err
	}
	return c.list("deployments", list.Total, each(list.Items, func(d engine.Deployment) object { return c.format.deployment(deploymentModel(d)) }))
}

// deploymentIDs are the ids in the path of a deployment.
func (c *call) deploymentIDs() (function, id string, err error) {
	function, id = c.in.id("functionId"), c.in.id("deploymentId")
	return function, id, c.in.err
}

func (a *API) getDeployment(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	d, err := c.p.GetDeployment(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.format.deployment(deploymentModel(d)))
}

func (a *API) activateDeployment(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	f, err := c.p.ActivateDeployment(c.r.Context(), c.by, function, id)
	return c.function(http.StatusOK, f, err)
}

func (a *API) deleteDeployment(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	if err := c.p.DeleteDeployment(c.r.Context(), c.by, function, id); err != nil {
		return err
	}
	return c.noContent()
}

// rebuild does not tell the id of the new deployment: clients list them.
func (a *API) rebuild(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	if _, err := c.p.Rebuild(c.r.Context(), c.by, function, id); err != nil {
		return err
	}
	return c.noContent()
}

func (a *API) cancelBuild(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	d, err := c.p.CancelBuild(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, buildModel(d))
}
