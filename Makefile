# SPDX-License-Identifier: Apache-2.0
# The two commands of the README: `make demo` and `make test`. Both create their own environment.
#
#   AIRFLOW=2.11 PYTHON=python3.12 VENV=.venv-2.11 make test     another combination of versions

PYTHON ?= python3
AIRFLOW ?= 3.3
VENV ?= .venv
UV := uv==0.13.8
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(AIRFLOW)
PYTEST_ARGS ?=

.PHONY: demo ui test lint types wheel format clean help

help:
	@echo "make demo    run the example DAGs in real Airflow against the embedded sandbox"
	@echo "make ui      start Airflow's web interface and the sandbox"
	@echo "make test    run every test that this machine can run"
	@echo "make lint types wheel format clean"

# DAG=lemlist_mapped_leads runs only this one.
demo: $(READY)
	@$(BIN)/python -m tools.demo $(DAG)

ui: $(READY)
	@$(BIN)/python -m tools.ui

test: $(READY)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

# The wheel must work with only its declared dependencies.
wheel: $(READY)
	@rm -rf dist && $(BIN)/uv build --quiet --out-dir dist
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/empty
	@$(BIN)/uv pip install --quiet --python $(VENV)/empty/bin/python \
		--constraint constraints/airflow-$(AIRFLOW).txt dist/*.whl
	@$(VENV)/empty/bin/python tools/check_wheel.py

format: $(READY)
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* .airflow .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

# What only one command needs is added to the environment when that command is run first.
$(VENV)/.ready-fleet: $(READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints/airflow-$(AIRFLOW).txt --group fleet
	@touch $@

# The documentation needs no Airflow.
DOCS_VENV ?= .venv-docs
$(DOCS_VENV)/.ready: $(READY) constraints/docs.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DOCS_VENV)
	@$(BIN)/uv pip install --quiet --python $(DOCS_VENV)/bin/python --constraint constraints/docs.txt --group docs
	@touch $@

# Missing prerequisites are reported in one line before the environment is created.
$(READY): pyproject.toml constraints/airflow-$(AIRFLOW).txt
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON) (Python 3.11 or newer; PYTHON=… names another)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python 3.11 or newer ($(PYTHON) is older; PYTHON=… names another)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "missing: the venv module of $(PYTHON) (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints/airflow-$(AIRFLOW).txt \
		--group test --group lint --editable '.[redis,sandbox,parquet]'
	@touch $@
