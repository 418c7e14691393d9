module github.com/fnkit/fnkit/clienttest

go 1.26.0

require (
	github.com/appwrite/sdk-for-go v0.3.0
	github.com/fnkit/fnkit v0.0.0
)

replace github.com/fnkit/fnkit => ../
