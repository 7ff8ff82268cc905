//go:build tools

// Package tools pins the version of grpcurl that `make peers` builds.
package tools

import _ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
