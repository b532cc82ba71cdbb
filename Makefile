# Every target installs first what it needs (scripts/setup.sh; a second run takes no time).

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Arguments for the program itself: make unit ARGS='-k portal', make serve ARGS='--listen ...'
ARGS ?=
# Throw-away machines; LUNPORT_LAB=here runs the same on this one.
LAB_SUITE := $(BIN)/python -m lab.suite --boots 6 tests/lab
# The lab has no network: os-brick, which Lunport is compared with there, is fetched before.
LAB_PEER := $(BIN)/python -m lab.os_brick_environment

.PHONY: help
help: ## Say what there is
	@printf 'Lunport. Two commands to start with: make demo, make test.\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install Debian packages and .venv, as far as they are missing
	@scripts/setup.sh

.PHONY: demo
demo: setup ## Show the job on real components, then a guest's move, in under 90 seconds
	@$(BIN)/lunport demo $(ARGS)

.PHONY: demo-quick
demo-quick: setup ## The first act of the demo alone, in a few seconds
	@$(BIN)/lunport demo --quick $(ARGS)

.PHONY: serve
serve: setup ## Run the all-in-one service in the foreground (ARGS='--listen 127.0.0.1:8776')
	@$(BIN)/lunport serve $(ARGS)

.PHONY: test
test: setup lint ## Prove everything: lint, types, layers, and all tests; nothing may be skipped
	@scripts/test.sh $(ARGS)

.PHONY: lab
lab: setup ## Boot a throw-away machine and run the tests that need a real kernel (ARGS='-k name')
	@$(LAB_PEER)
	@$(LAB_SUITE) $(ARGS)

.PHONY: unit
unit: setup ## The fast loop: tests without processes and sockets
	@$(BIN)/pytest -q tests/unit $(ARGS)

.PHONY: lint
lint: setup ## Style, types, layers and changelog fragments
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/changelog.py --check

.PHONY: format
format: setup ## Put the source into the one layout
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: stress
stress: setup ## Loops, leak counts and kills at every step; takes long
	@LUNPORT_REQUIRE=all $(BIN)/pytest -q --timeout=3600 -o faulthandler_timeout=0 tests/stress $(ARGS)
	@$(LAB_PEER)
	@$(LAB_SUITE) -m again
	@$(BIN)/python -m lab --time-limit 5400 -- $(BIN)/pytest -q --timeout=3000 -o faulthandler_timeout=0 tests/lab_stress $(ARGS)

.PHONY: bench-api
bench-api: setup ## Measure the API; the peer beside it where it can be had
	@$(BIN)/python -m bench.api $(ARGS)

.PHONY: bench-exports
bench-exports: setup ## Measure many volumes exported to ten hosts (ARGS='--volumes 200')
	@$(BIN)/python -m bench.exports $(ARGS)

.PHONY: bench-attach
bench-attach: setup ## Measure attaching beside os-brick in the lab (ARGS='--only healthy --rounds 3')
	@$(BIN)/python -m bench.attach $(ARGS)

.PHONY: bench-stall
bench-stall: setup ## Measure how long I/O stalls at a lost path (ARGS='--only reset --rounds 1')
	@$(BIN)/python -m bench.stall $(ARGS)

.PHONY: bench-migrate
bench-migrate: setup ## Measure moving a guest beside libvirt's own call (ARGS='--pairs 2')
	@$(BIN)/python -m bench.migrate $(ARGS)

.PHONY: lock
lock: ## Resolve the requirements anew; UPGRADE=1 takes the newest of everything
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: changelog
changelog: setup ## Show what the next release's changelog will say
	@$(BIN)/python scripts/changelog.py $(ARGS)

.PHONY: clean
clean: ## Remove what the targets above made here; no Debian package is removed
	@rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
