# What is not listed by `make help` is not supported.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The machine's index of packages is asked only when a package is missing.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help root setup demo test test-fast test-root lint fmt generate lock bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: root setup ## build a pkgs image, sign it, run its services from a block device (as root)
	@$(BIN)/python images/demo.py

test: lint test-fast test-root ## everything that decides whether a change is good (as root)

test-fast: setup ## tests that need neither root nor the kernel's help, under a minute
	$(PYTEST) -q -m "not root" -n $(JOBS)

test-root: root setup ## tests with real loop devices, mounts, cgroups and containers (as root)
	$(PYTEST) -q -m root

lint: setup ## ruff, mypy, import-linter, shellcheck
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary extsloader tests bench images docs
	$(BIN)/lint-imports --no-cache > $(VENV)/imports.txt || { cat $(VENV)/imports.txt; exit 1; }
	shellcheck .ci/setup .ci/run $$(grep -rlE '^#!/bin/(ba|da)?sh' images)

fmt: setup ## put the code into its one form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## write what is generated: JSON Schema, OpenAPI, diagrams
	$(BIN)/python -m extsloader.verify.schema > manifests/manifest.schema.json
	$(BIN)/python -m extsloader.adapters.status_socket.openapi > docs/openapi.json
	$(BIN)/python docs/diagrams.py

lock: setup ## resolve the Python dependencies anew
	$(PIP) install pip-tools
	for set in "device:" "build:--extra=build" "dev:--extra=build --extra=dev"; do \
	  $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $${set#*:} \
	    --output-file=requirements/$${set%%:*}.txt pyproject.toml || exit 1; \
	done

bench: root setup ## measure speed and size (as root)
	$(BIN)/python -m bench

setup: $(READY) ## install what is needed: Debian packages and a virtual environment
	@.ci/setup

$(READY): requirements/dev.txt pyproject.toml
	@.ci/setup
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --requirement requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

root:
	@[ "$$(id -u)" = 0 ] || { echo "this makes mounts and containers: run it as root"; exit 1; }

clean: ## remove everything that can be made again
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
