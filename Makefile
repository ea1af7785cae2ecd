# Everything Fanline needs on a fresh machine, from Python 3.11 and make alone.
#
# requirements.lock pins everything; requirements-run.lock pins what running takes, a subset. Both hold exact versions
# with hashes. The stamp files make a second run instant; a changed lock or pyproject.toml triggers a reinstall.

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
NODE := examples/tasks/node/node_modules/.package-lock.json
FOREIGN := tests/support/foreign/.websockets-13/.installed \
	$(if $(shell command -v npm),tests/support/foreign/node_modules/.package-lock.json)

# The interpreter for the virtual environment: the first one that is new enough.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OFFLINE := { echo 'fanline: pip could not install what the lock file names; it needs a package index that it reaches' \
	'(PIP_INDEX_URL), or a folder of wheels (PIP_FIND_LINKS)'; exit 1; } >&2
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --upgrade pyproject.toml

PYTEST := $(BIN)/python -P -m pytest
# Whole files at a time and in order, by several processes of pytest. ARGS='-n0' runs them in one, as --pdb needs.
# Tests that start servers wait more than half of the time, and are late if too many run at once.
WHOLE_FILES := --dist loadfile --no-loadscope-reorder
INSIDE := $(PYTEST) -n 4 $(WHOLE_FILES) -m 'not process'
OUTSIDE := $(PYTEST) -n 3 $(WHOLE_FILES) -m process

.DEFAULT_GOAL := help
.PHONY: help demo test quick foreign pythons mutants faults soak fuzz check lint types lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUN)  ## run the live demo; SECONDS=10 ends it by itself
	@$(BIN)/fanline demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(DEV) $(FOREIGN) $(if $(shell command -v npm),$(NODE))  ## run all tests; ARGS='-k hub' goes to pytest
	@$(INSIDE) $(ARGS) || [ $$? = 5 ]  # 5: ARGS chooses none of these
	@$(OUTSIDE) $(ARGS) || [ $$? = 5 ]

quick: $(DEV)  ## run the tests that need no process, server or socket; takes ARGS, too
	@$(INSIDE) $(ARGS)

foreign: $(DEV) $(FOREIGN)  ## install the WebSocket clients of others that tests/integration/systems plays

pythons: $(FOREIGN)  ## run all tests on every installed Python from 3.11 on, in .venvs/; takes ARGS, too
	@$(PYTHON) -m tests.support.tools.pythons $(ARGS)

mutants: $(DEV)  ## change the code that decides: do the tests notice? ARGS='--sample 100 engine/channels/hub.py'
	@$(BIN)/python -m tests.support.tools.mutants $(ARGS)

faults: $(DEV)  ## break a real server in all known ways: what was promised, what was seen? ARGS='--list', ARGS='nats disk'
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(DEV)  ## a real server under traffic for 20 minutes: does anything grow? ARGS='--minutes 60'
	@$(BIN)/python -m tests.faults.soak $(ARGS)

fuzz: $(DEV)  ## throw damaged input at all that reads bytes; ARGS='--seconds 600 token' for longer, or for a part
	@$(BIN)/python -m tests.fuzz $(ARGS)

check: lint types test  ## everything that must pass before a change is done

lint: $(DEV)  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV)  ## mypy, strict, tests included
	@$(BIN)/mypy

lock: $(RUN)  ## recreate both lock files from pyproject.toml; has each dependency a wheel for the newest Python?
	@$(INSTALL) 'uv>=0.13'
	@$(COMPILE) --group dev --extra server --extra loadtest --output-file requirements.lock
	@$(COMPILE) --group build --extra server --constraints requirements.lock --output-file requirements-run.lock
	@$(BIN)/python -m tests.support.tools.wheels requirements-run.lock

clean:  ## remove the virtual environment, caches and build output
	@rm -rf $(VENV) .venvs examples/tasks/node/node_modules tests/support/foreign/node_modules \
		tests/support/foreign/.websockets-13 build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'fanline: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3.11'; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'fanline: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11'; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'fanline: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv'; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV)

$(RUN): requirements-run.lock pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) ...'
	@$(INSTALL) --require-hashes --requirement requirements-run.lock || $(OFFLINE)
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements.lock $(RUN)
	@echo 'installing the tools for tests and checks ...'
	@$(INSTALL) --require-hashes --requirement requirements.lock || $(OFFLINE)
	@touch $@

# One test of an example needs them; it is skipped without.
$(NODE): examples/tasks/node/package-lock.json
	@echo 'installing the modules of the Node example ...'
	@cd $(<D) && npm ci --silent --no-audit --no-fund --fetch-retries=0 && touch node_modules/.package-lock.json || \
		echo 'fanline: npm ci failed in $(<D); the test of the Node example is skipped' >&2

# The tests that need these fail without: a machine that has npm and no modules would skip them unnoticed.
tests/support/foreign/node_modules/.package-lock.json: tests/support/foreign/package-lock.json
	@echo 'installing the WebSocket client for Node ...'
	@cd tests/support/foreign && npm ci --silent --no-audit --no-fund && touch node_modules/.package-lock.json || \
		echo 'fanline: npm ci failed in tests/support/foreign; the tests that need it fail' >&2

tests/support/foreign/.websockets-13/.installed: tests/support/foreign/websockets-13.txt | $(RUN)
	@echo 'installing the old WebSocket client for Python ...'
	@$(INSTALL) --require-hashes --upgrade --target $(@D) --requirement $< && touch $@ || \
		echo 'fanline: pip failed for $<; the tests that need it fail' >&2
