# Every target sets up what it needs. What has been done is remembered by stamps in .venv/.stamps, so a second
# run costs nothing until the lock or the Rust sources change.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PACKAGES := sentimesh ingest_svc filter_svc scorer_svc aggregator_svc gateway_svc
CARGO_MANIFEST := --manifest-path native/Cargo.toml
NATIVE_SOURCES := $(shell find native -name target -prune -o \( -name '*.rs' -o -name 'Cargo.*' -o -name build.rs \) -print)
PEERS := $(notdir $(wildcard tools/peers/*))
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

##@ Use it

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMPS)/native ## Make .venv with everything in it: .venv/bin/sentimesh
	@echo "ready: $(BIN)/sentimesh --help"

demo: $(STAMPS)/native ## Run the whole pipeline on simulated posts, under a minute
	$(BIN)/sentimesh demo

up: $(STAMPS)/native ## Serve everything on this machine until stopped
	$(BIN)/sentimesh up

##@ Work on it

test: test-rust ## Run the tests of the Rust crate and of Python
	@# Tests wait for servers more than they compute; each worker has servers of its own. In their own order the long ones come early.
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-rust: $(STAMPS)/native ## Run the tests of the Rust crate
	@# The crate's tests load libpython, which may be where the loader does not look.
	LD_LIBRARY_PATH="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'):$${LD_LIBRARY_PATH:-}" \
	  PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo test --locked $(CARGO_MANIFEST)

lint: $(STAMPS)/native ## Check style, types, Rust and the contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict --explicit-package-bases $(PACKAGES) tests tools bench deploy
	cargo fmt --check $(CARGO_MANIFEST)
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --locked --all-targets $(CARGO_MANIFEST) -- -D warnings
	$(BIN)/python tools/generate_protos.py --check
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/baseline.binpb

format: $(STAMPS)/packages ## Write Python and Rust in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	cargo fmt $(CARGO_MANIFEST)

bench: $(STAMPS)/native ## Run the benchmarks in bench/
	for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

proto: $(STAMPS)/packages ## Generate sentimesh/pb from proto/
	$(BIN)/python tools/generate_protos.py

proto-baseline: $(STAMPS)/packages ## Take the contracts as they are for released: `make lint` guards them from then on
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/buf build proto --exclude-source-info -o proto/baseline.binpb

lock: $(STAMPS)/python ## Bring requirements.lock in line with requirements.in (UPGRADE=1 takes newer versions)
	for name in requirements requirements-bootstrap; do \
	  $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-header \
	    $(if $(UPGRADE),--upgrade) "$$name.in" -o "$$name.lock"; \
	done

peers: $(PEERS:%=.peers/bin/%) ## Build the Go programs that tests use as real peers
	@echo "in .peers/bin: $(PEERS)"

clean: ## Remove what was built, the environment included
	rm -rf $(VENV) .peers native/target sentimesh/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMPS)/python: requirements-bootstrap.lock
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	  echo "error: sentimesh is set up with Python 3.11, and '$(PYTHON)' is not one: install it, or name it with 'make PYTHON=/path/to/python3.11 …'" >&2; \
	  exit 1; \
	fi
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/packages: requirements.lock $(STAMPS)/python
	$(BIN)/uv pip install -q --require-hashes -r requirements.lock
	touch $@

$(STAMPS)/native: pyproject.toml $(NATIVE_SOURCES) $(STAMPS)/packages
	@command -v cargo >/dev/null || { \
	  echo "error: the Rust part of sentimesh is built with cargo, which is not on PATH: install Rust 1.85 or newer and run make again" >&2; \
	  exit 1; \
	}
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin develop --release --uv -q
	touch $@

# One folder a peer; its tools.go imports the program, its go.mod and go.sum pin it. A peer that needs more than
# `go build` brings a build.sh, which is given the file to write.
.SECONDEXPANSION:
.peers/bin/%: $$(wildcard tools/peers/%/*)
	@command -v go >/dev/null || { \
	  echo "error: the peers are built with Go, which is not on PATH: install it; tests that use a peer are skipped without" >&2; \
	  exit 1; \
	}
	mkdir -p $(@D)
	if [ -e tools/peers/$*/build.sh ]; then tools/peers/$*/build.sh "$(CURDIR)/$@"; exit; fi; \
	  package="$$(sed -n 's/^import _ "\(.*\)"$$/\1/p' tools/peers/$*/tools.go)"; \
	  cd tools/peers/$* && go build -trimpath -o "$(CURDIR)/$@" "$$package"

.PHONY: help setup demo up test test-rust lint format bench proto proto-baseline lock peers clean
