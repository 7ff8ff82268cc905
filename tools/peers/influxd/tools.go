//go:build tools

// Package tools pins the versions of InfluxDB and of the pkg-config that builds its Rust part.
package tools

import (
	_ "github.com/influxdata/influxdb/v2/cmd/influxd"
	_ "github.com/influxdata/pkg-config"
)
