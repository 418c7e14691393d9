// Package fnbox runs functions that are part of the host program: a
// [sandbox.Driver] without processes and without isolation, for trusted code and
// for tests.
//
// A deployment for it has the runtime "func-1" and the name of a function as its
// entrypoint; its source is not looked at. The function gets the same request and
// gives the same response as one in any other language:
//
//	box := fnbox.New(fnbox.Funcs{
//		"hello": func(ctx context.Context, c *fnbox.Context) error {
//			c.Log("called by", c.Req.Method)
//			return c.JSON(200, map[string]string{"hello": c.Env("NAME")})
//		},
//	})
//
// Go code cannot be killed. A call that must end has its context cancelled; a
// function that does not mind it keeps running, its call is over nevertheless,
// and other calls of the instance go on.
package fnbox
