# `make demo` sets everything up and runs the main job; `make test` sets everything up and passes the tests.
.DEFAULT_GOAL := help
SHELL := bash
VENV := .venv
PY := $(VENV)/bin/python
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
include infra/quiet.env
export

.PHONY: help setup demo demo-real up test check fmt bench lock

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.synced ## install exactly what requirements.txt pins into .venv

# Without find-links the lock's torch comes from the index, whose build needs packages that the lock does not name.
# All is compiled once: where PYTHONDONTWRITEBYTECODE is set, every process would compile what it imports.
$(VENV)/.synced: requirements.txt pyproject.toml
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(PY) -m uv pip sync --quiet --compile-bytecode --python $(PY) $(FIND_LINKS) requirements.txt
	@$(if $(PIP_FIND_LINKS),,$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) --reinstall-package torch torch==2.13.0)
	@$(PY) -m uv pip install --quiet --python $(PY) --no-deps --editable .
	@$(PY) -m compileall -q feature_repo training serving orchestration
	@touch $@

demo: setup ## a simulated service, from raw events to an approved, answering detector
	@$(PY) -m orchestration.cli demo

demo-real: export MEWS_HOME := $(or $(MEWS_HOME),.mews-real)
demo-real: setup ## the same chain on public data below MEWS_DATA (default ../shared/data), in a home of its own
	@$(PY) -m orchestration.cli demo-real

up: setup ## Dagster, MLflow and the service under one supervisor
	@$(PY) -m orchestration.cli up

test: setup ## all tests
	@$(PY) -m pytest -n 2 --dist loadfile

check: setup ## format, lint, types, layers, definitions
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/dagster definitions validate

fmt: setup ## format and fix
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

bench: setup ## every benchmark
	@for bench in tests/bench/bench_*.py; do $(PY) -m "tests.bench.$$(basename $$bench .py)" || exit 1; done

bench-%: setup ## one benchmark: make bench-features
	@$(PY) -m tests.bench.bench_$*

lock: setup ## resolve the pins anew
	@$(PY) -m uv pip compile --quiet --python-version 3.11 $(FIND_LINKS) --all-extras --no-header --no-annotate --no-emit-find-links \
	    --no-emit-index-url pyproject.toml --output-file requirements.txt
	@sed -i 's/+cpu//' requirements.txt
