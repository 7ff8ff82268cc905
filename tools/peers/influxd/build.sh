#!/usr/bin/env bash
# Builds influxd into the file $1. It contains libflux, Rust, which Go finds through a pkg-config of InfluxDB's own:
# that one runs cargo and answers where the library is.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
output="$1"
helper="$(dirname "$output")/../influxd-build"

# libflux pins an old toolchain: the one in use outside of it builds it too.
if command -v rustup >/dev/null; then
    RUSTUP_TOOLCHAIN="$(rustup show active-toolchain | cut -d ' ' -f 1)"
    export RUSTUP_TOOLCHAIN
fi
export RUSTC_WRAPPER="$here/rustc-warns.sh"

# A server for tests needs neither the smallest library nor the fastest SQLite, and both take minutes.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CGO_CFLAGS=-O1

cd "$here"
go build -trimpath -o "$helper/pkg-config" github.com/influxdata/pkg-config
PATH="$helper:$PATH" go build -trimpath -ldflags "-s -w" -tags sqlite_foreign_keys,sqlite_json -o "$output" \
    github.com/influxdata/influxdb/v2/cmd/influxd
