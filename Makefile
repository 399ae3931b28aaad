# The one door. `make help` lists the targets.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
# Tests that run at once: more than two make those that wait for a peer fail on two processors.
JOBS ?= 2
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup setup-32 run test test-faults test-sdk test-boards test-32 bench footprint lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install and build all that is needed, into .venv/ and build/
	@$(PYTHON) tools/bootstrap.py

setup-32:
	@$(PYTHON) tools/bootstrap.py --mpy32

run: setup ## local hub, one agent and a sample application; shows messages until Ctrl-C
	@$(BIN)/vedette demo $(if $(RUN_SECONDS),--seconds $(RUN_SECONDS))

test: setup-32 ## all quick tests, on the 64-bit and the 32-bit MicroPython
	@VEDETTE_LANES=64,32 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-faults: setup-32 ## the long rounds: killing, fuzzing, load (many minutes)
	@VEDETTE_LANES=64,32 $(BIN)/python -m pytest -m slow

build/sdk/done: tests/sdk/requirements.txt
	@$(BIN)/pip install --quiet --require-hashes -r tests/sdk/requirements-hub.txt
	@$(PYTHON) -m venv build/sdk
	@build/sdk/bin/pip install --quiet --require-hashes -r tests/sdk/requirements.txt
	@touch $@

test-sdk: setup build/sdk/done ## the local hub against Microsoft's Python and Node SDKs, in environments of their own
	@mkdir -p build/sdk-node && cp tests/sdk/package.json tests/sdk/package-lock.json build/sdk-node
	@cd build/sdk-node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@PYTHONPATH=tools:tests build/sdk/bin/python -m pytest tests/sdk --confcutdir tests/sdk -m slow -W ignore

test-boards: setup-32 ## deploying and flashing, on pseudo-terminals; the quick part is in make test
	@VEDETTE_LANES=64,32 $(BIN)/python -m pytest tests/boards -m ""

test-32: setup-32 ## the device tests on the 32-bit MicroPython only
	@VEDETTE_LANES=32 $(BIN)/python -m pytest tests/unit

bench: setup-32 $(if $(ONLY),,build/sdk/done) ## the figures against their budgets; ONLY=tap for some, CI=1 as CI holds them
	@$(BIN)/python tests/bench/run.py $(if $(CI),--ci) $(if $(ONLY),--only $(ONLY))

footprint: setup-32 ## measure what the code takes, and write docs/footprint.md
	@$(BIN)/python tests/bench/footprint.py

lint: setup ## ruff, codespell, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell
	@$(BIN)/mypy

format: setup ## let ruff lay the code out
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

lock: ## pin tools/requirements.in again, with hashes
	@$(LOCK) tools/requirements.in -o tools/requirements.txt
	@$(LOCK) tests/sdk/requirements.in -o tests/sdk/requirements.txt
	@$(LOCK) tests/sdk/requirements-hub.in -o tests/sdk/requirements-hub.txt

clean: ## remove what was built; the virtual environment too
	rm -rf build .venv
