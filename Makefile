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

.PHONY: demo ui fleet test lint types dist wheel sbom docs format clean help

help:
	@echo "make demo    run the example DAGs in real Airflow against the embedded sandbox"
	@echo "make ui      start Airflow's web interface and the sandbox"
	@echo "make fleet   run Celery workers and triggerers, and kill some of them, against the sandbox"
	@echo "make test    run every test that this machine can run"
	@echo "make docs    build the site of docs/ into build/site"
	@echo "make lint types dist wheel sbom format clean"

# DAG=lemlist_mapped_leads runs only this one.
demo: $(READY)
	@$(BIN)/python -m tools.demo $(DAG)

ui: $(READY)
	@$(BIN)/python -m tools.ui

# Needs redis-server and PostgreSQL. ARGS="--only calm" kills nothing; ARGS=--help lists the other arguments.
fleet: $(VENV)/.ready-fleet
	@$(BIN)/python -m tools.fleet $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

# The wheel and the sdist, built twice, and a page of links to them from which pip installs.
dist: $(READY)
	@$(BIN)/python -m tools.release

# What pip installs from that page must work with only its declared dependencies.
EMPTY := $(VENV)/empty
wheel: dist
	@$(BIN)/uv venv --quiet --clear --seed --python $(BIN)/python $(EMPTY)
	@$(EMPTY)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--find-links build/index.html --constraint constraints/airflow-$(AIRFLOW).txt \
		"airflow-provider-lemlist==$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' airflow_provider_lemlist/__init__.py)"
	@$(EMPTY)/bin/python tools/check_wheel.py dist/*.whl

# The bill of materials: the package and what pip installs with it.
sbom: wheel
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/sbom
	@$(BIN)/uv pip install --quiet --python $(VENV)/sbom/bin/python --requirement constraints/sbom.txt
	@$(EMPTY)/bin/python -m pip uninstall --quiet --quiet --yes pip setuptools
	@$(VENV)/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.cdx.json $(EMPTY)/bin/python
	@echo "build/sbom.cdx.json: $$(grep -c '"bom-ref"' build/sbom.cdx.json) components"

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

# Every warning is an error: a broken link, a name in a docstring that is not there, a page outside the navigation.
# Not with --quiet, which also silences the errors that warnings become.
docs: $(DOCS_VENV)/.ready
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict
	@echo "build/site: python3 -m http.server --bind 127.0.0.1 --directory build/site"

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
