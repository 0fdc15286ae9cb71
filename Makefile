# One command everywhere: what runs here is what runs in CI.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# The stamp's name holds the hash of what decides the environment: it changes when they do.
STATE := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.ready-$(STATE)
# What the demo needs: the run-time dependencies. The whole set-up holds them too.
LIGHT := $(VENV)/.light-$(STATE)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo quick check test bench recipes lint format types imports tests wheel clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP)  ## the virtual environment in .venv, pinned; quick when nothing changed

$(STAMP): EXTRAS := [dev]
$(STAMP) $(LIGHT):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Holdfast needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools hatchling editables
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.$(EXTRAS)'
	rm -f $(VENV)/.ready-* $(VENV)/.light-*
	touch $@

demo: $(if $(wildcard $(STAMP)),,$(LIGHT))  ## the main job on real data that ships with the project
	$(BIN)/holdfast demo

quick: setup  ## one room's work within a minute: its tests, the house, types (ROOM=stats)
	$(BIN)/python scripts/quick.py $(ROOM) --jobs $(JOBS)

check: lint types imports tests  ## lint, types, import contract, tests

test:  ## set-up if needed, then every check
	$(MAKE) setup
	$(MAKE) check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

tests: setup
	$(BIN)/pytest -n $(JOBS) --dist worksteal

bench: setup  ## the benchmarks; resumable, one JSON line a finished cell
	$(BIN)/python -m pip install --quiet -c constraints.txt 'setfit>=1.1' 'trl>=1.16'
	$(BIN)/python benchmarks/run_all.py

recipes: setup  ## look up every name in recipes/ on the hub; says so when there is no network
	$(BIN)/python scripts/check_recipes.py

wheel: setup  ## build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps -w dist .

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
