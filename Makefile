# What one does with trunkline. Each command sets up what it needs by itself, and again only when the lock file changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
# How many tests run beside each other: whole files of them. Most wait for a server, so four on two cores. One by one where only some are asked for.
WORKERS ?= $(if $(ARGS),0,4)
BIN := .venv/bin
SYNCED := .venv/.synced

export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# The machine's own certificates where it has any: a company's proxy is trusted by those only.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := 1
endif

.PHONY: help setup run test check bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SYNCED)  ## .venv with everything in uv.lock

run: export TRUNKLINE_UP_SINCE := $(shell date +%s)
run: $(SYNCED)  ## PostgreSQL, Asterisk, daemon and two phones that call each other (ARGS="--help" says what else)
	@$(BIN)/trunkline up $(ARGS)

test: $(SYNCED)  ## all tests, against a real Asterisk and a real PostgreSQL (ARGS="tests/unit -k aio" for some)
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(SYNCED)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(SYNCED)  ## the figures in the README, beside the peers' (ARGS="bench/memory.py" for one)
	@$(BIN)/uv sync --quiet --frozen --all-extras --group bench
	@$(BIN)/python bench/run.py $(ARGS)

clean:  ## remove .venv, .trunkline and caches
	rm -rf "$$(readlink .trunkline/postgres/elsewhere || echo .trunkline)"
	rm -rf .venv .trunkline .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SYNCED): pyproject.toml uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON) here: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "trunkline needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@[ -x $(BIN)/pip ] || [ -x $(BIN)/uv ] || { echo "making .venv with $$($(PYTHON) -V) ..."; $(PYTHON) -m venv .venv; } \
	  || { rm -rf .venv; echo "python3 cannot make a virtual environment here: apt-get install python3-venv"; exit 1; }
	@[ -x $(BIN)/uv ] || { echo "fetching uv from PyPI ..."; $(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'; }
	@echo "fetching the $$(grep -c '^source = { registry' uv.lock) packages of uv.lock from PyPI ..."
	@$(BIN)/uv sync --quiet --frozen --all-extras
	@touch $(SYNCED)
