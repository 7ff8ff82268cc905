//go:build tools

// Package tools pins the version of docker-compose that `make peers` builds.
package tools

import _ "github.com/docker/compose/v2/cmd"
