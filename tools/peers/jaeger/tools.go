//go:build tools

// Package tools pins the version of Jaeger that `make peers` builds.
package tools

import _ "github.com/jaegertracing/jaeger/cmd/all-in-one"
