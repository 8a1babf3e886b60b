# `make run` and `make test` do all the set-up on a fresh Debian-like machine with Python 3.11 or later.
SHELL := /bin/bash
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that tests run in side by side. Many of them only wait, so that one more than there are cores is none too many.
WORKERS ?= 3

.PHONY: help run test lint types unit bench docs clean

help: ## List what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

run: $(VENV)/.run ## Set up, and start Spile on its embedded default
	@exec $(BIN)/spile serve $(ARGS)

test: $(VENV)/.test ## Set up, and run linting, type checks and the whole suite
	@setup/need mosquitto_sub mosquitto-clients
	@setup/need mosquitto mosquitto
	@setup/need nats-server nats-server
	@setup/need openssl openssl
	@setup/need pg_ctlcluster postgresql
	@setup/clients >/dev/null || [ $$? = 3 ]
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@WORKERS="$(WORKERS)" setup/suite $(BIN)/python $(ARGS)

lint: $(VENV)/.test ## Only linting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## Only type checks
	$(BIN)/mypy

unit: $(VENV)/.test ## Only the unit tests
	$(BIN)/python -m pytest tests/unit $(ARGS)

bench: $(VENV)/.test ## Run every benchmark, printing a line of JSON each (many minutes)
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.test ## Write the reference pages from the code
	$(BIN)/python docs/generate.py

clean: ## Remove the environment and caches (data stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(VENV)/bin/pip:
	@PYTHON="$(PYTHON)" setup/venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run
