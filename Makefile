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

# What is built. One stamp for everything that one call of make builds.
HV ?= kvm
ARCH ?= $(shell dpkg --print-architecture)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0)-$(HV)
export VERSION
# DEBUG=1 adds shells without password on the serial consoles.
DEBUG ?=
DIST ?= dist/$(ARCH)/$(VERSION)
KEYS ?= build/keys
CONF ?= images/conf
# The time that the manifest says; the rest of an image carries no time.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# What is run: the last build, and how the pkgs image gets into the machine.
CURRENT ?= dist/$(ARCH)/current
VIA ?= vvfat

MKEXT := $(BIN)/mkext
OUT := images/out
BOOTSTRAP := $(OUT)/rootfs_bootstrap-$(HV).yml $(if $(DEBUG),$(OUT)/rootfs_debug-$(HV).yml)

.DEFAULT_GOAL := help
.PHONY: help root setup demo test test-fast test-root test-vm test-hostile test-faults sweep nemesis \
  fuzz mutants lint fmt generate lock bench clean \
  definitions pkgs_rootfs bootstrap_rootfs multi_rootfs live-bootstrap keys current \
  run-bootstrap run-bootstrap-with-pkgs

help: ## show this list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

pkgs_rootfs: definitions keys ## the signed pkgs image, in dist/ARCH/VERSION/installer
	$(MKEXT) build $(OUT)/rootfs_pkgs-$(HV).yml --key $(KEYS)/extsloader.key \
	  --out $(DIST)/installer --image-version $(VERSION) --hypervisor $(HV) --arch $(ARCH) --allow-newer
	@$(MKEXT) sbom $(OUT)/rootfs_pkgs-$(HV).yml --arch $(ARCH) --allow-newer -o $(DIST)/installer/rootfs-pkgs.spdx.json
	@$(MAKE) --no-print-directory current

bootstrap_rootfs: definitions keys ## the bootstrap image, in dist/ARCH/VERSION/installer
	$(MKEXT) bootstrap $(BOOTSTRAP) --no-disk $(BOOTSTRAP_OPTIONS)
	@$(MKEXT) sbom $(BOOTSTRAP) --arch $(ARCH) --allow-newer -o $(DIST)/installer/rootfs-bootstrap.spdx.json
	@$(MAKE) --no-print-directory current

multi_rootfs: bootstrap_rootfs pkgs_rootfs ## both images

live-bootstrap: definitions keys ## a disk that boots the bootstrap image: live-bootstrap.qcow2
	$(MKEXT) bootstrap $(BOOTSTRAP) --conf $(CONF) $(BOOTSTRAP_OPTIONS)
	@$(MAKE) --no-print-directory current

run-bootstrap: setup ## boot the last build in QEMU
	$(MKEXT) run $(CURRENT)/live-bootstrap.qcow2

run-bootstrap-with-pkgs: setup ## the same with the pkgs image, VIA=vvfat|virtio|usb|partition
	$(MKEXT) run $(CURRENT)/live-bootstrap.qcow2 \
	  --pkgs $(CURRENT)/installer/rootfs-pkgs.img --via $(VIA)

BOOTSTRAP_OPTIONS = --out $(DIST) --files $(DIST)/installer --hv $(HV) --arch $(ARCH) --level 15 \
  --limit 300M --allow-newer

# Templates for this hypervisor: images/out/NAME-HV.yml.
definitions: setup
	@for name in pkgs bootstrap debug; do \
	  $(MKEXT) render images/rootfs_$$name.yml.in --hv $(HV) --version $(VERSION) \
	    -o $(OUT)/rootfs_$$name-$(HV).yml || exit 1; \
	done

# What the bootstrap image says about itself, and the key that it accepts.
keys: setup
	@[ -e $(KEYS)/extsloader.key ] || $(MKEXT) keygen $(KEYS)
	@mkdir -p $(DIST)/installer
	@cp $(KEYS)/extsloader.pem systemd/extsloaderd.service systemd/extsloader.tmpfiles.conf \
	  $(DIST)/installer
	@echo $(VERSION) > $(DIST)/installer/eve_version

current:
	@[ $(DIST) != dist/$(ARCH)/$(VERSION) ] || ln -sfn $(VERSION) dist/$(ARCH)/current

demo: root setup ## build a pkgs image, sign it, run its services from a block device (as root)
	@$(BIN)/python images/demo.py

test: lint test-fast test-root test-vm ## everything that decides whether a change is good (as root)

test-fast: setup ## tests that need neither root nor the kernel's help, under a minute
	$(PYTEST) -q -m "not root and not vm" -n $(JOBS)

test-root: root setup ## tests with real loop devices, mounts, cgroups and containers (as root)
	$(PYTEST) -q -m "root and not nemesis"

# A build of its own, with shells on the serial consoles for the tests.
VM = build/vm
test-vm: setup ## tests that boot the disk in QEMU
	@$(MAKE) --no-print-directory live-bootstrap pkgs_rootfs DEBUG=1 DIST=$(VM)
	EXTST_DIST=$(VM) $(PYTEST) -q -m vm

test-hostile: root setup ## every row of docs/hostile-inputs.md, one line each (as root)
	$(PYTEST) -q -p tests.hostile.rows -m "not vm" -n $(JOBS)

FUZZ_SECONDS ?= 300
fuzz: setup ## made-up bytes for every reader of untrusted ones, FUZZ_SECONDS for each
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(PYTEST) -q tests/fuzz --timeout 0 -n $(JOBS)

mutants: setup ## spoil the deciding modules one operator at a time: do the tests notice?
	$(BIN)/python -m bench.mutants

test-faults: root setup ## every fault of the fault model that this machine can suffer (as root)
	$(PYTEST) -q -m root tests/faults

SWEEP =
sweep: root setup ## kill the agent at every call that leaves something behind (hours, as root)
	$(BIN)/python -m tests.faults.crash_points --jobs $(JOBS) $(SWEEP)

SECONDS = 600
nemesis: root setup ## operations and faults in any order for SECONDS (as root)
	$(BIN)/python -m tests.faults.nemesis --seconds $(SECONDS)

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
