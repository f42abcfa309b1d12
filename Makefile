# SPDX-License-Identifier: GPL-2.0-or-later
# The whole interface: demo, test, lint, bench, verify, docs. Each works on a fresh machine that has Python 3.11 or later with
# venv and can reach PyPI: it makes its own virtual environment in .venv, and is quick when that is up to date.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# The package with its inner modules compiled (setup.py says how), as `MEMTWIN_MYPYC=1 pip install .` installs it.
COMPILED := build/compiled
SOURCES := $(shell find src/memtwin -name '*.py' -o -name '*.[ch]') setup.py pyproject.toml
COMPILER := $(shell command -v $${CC:-cc})

# What the demo's machine looks like, and what it reads.
DEMO_MACHINE := --nodes 2 --memory 64G
DEMO_FILE := LICENSE

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled compiled lint format bench verify docs pages clean

help:
	@echo "make demo    run two real programs on a twin, show one change of the kernel, compare with the live kernel"
	@echo "make test    run the tests (PYTEST_ARGS=... for more arguments)"
	@echo "make compiled  build the package with its inner modules compiled, in $(COMPILED) (needs a C compiler)"
	@echo "make test-compiled  run the tests of these modules on it"
	@echo "make lint    ruff, mypy --strict and the import contract"
	@echo "make bench   measure against the kernel that runs here"
	@echo "make verify  compare the twin with the kernel that runs here"
	@echo "make docs    build the documentation in site/ (make pages: only its generated pages)"
	@echo "make clean   remove everything that was made"

# A stamp names what is installed; it is older than pyproject.toml when that changed.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "memtwin needs Python 3.11 or later: set PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv: install it (Debian: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: $(VENV)/run.stamp
	@set -e; busybox=$$($(BIN)/python tools/get-busybox); set -x; \
	$(BIN)/memtwin run $(DEMO_MACHINE) -- $$busybox ls -l; \
	$(BIN)/memtwin run $(DEMO_MACHINE) --show /proc/meminfo -- $$busybox sha256sum $(DEMO_FILE); \
	$(BIN)/memtwin try mprotect-unaccount-unfaulted; \
	$(BIN)/memtwin verify --programs 200 --no-coverage || { status=$$?; set +x; test $$status -eq 2 || exit $$status; \
		echo "make demo: not compared with the kernel that runs here, for the reason above"; }

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PYTEST_ARGS)

compiled: $(COMPILED)/stamp

# pip builds in the tree: what an earlier build left there would be packed too.
$(COMPILED)/stamp: $(SOURCES) | $(BIN)/python
	rm -rf build
	MEMTWIN_MYPYC=1 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(COMPILED) .
	@touch $@

test-compiled: $(VENV)/test.stamp compiled
	$(BIN)/python -m pytest -o pythonpath='$(COMPILED) tests' $(PYTEST_ARGS) tests/fault_injection \
		$(addprefix tests/unit/,experiments fs hw kernel lib mm sched script verify test_machine.py)

lint: $(VENV)/test.stamp $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/lint.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Measured as a user who asks for speed has it; interpreted where there is no compiler.
bench: $(VENV)/run.stamp $(if $(COMPILER),compiled)
	$(BIN)/python benchmarks/bench.py $(if $(COMPILER),--compiled $(COMPILED)) $(BENCH_ARGS)

verify: $(VENV)/run.stamp
	$(BIN)/memtwin verify $(VERIFY_ARGS)

# Written to a temporary file first: a page must not vanish when its generator fails.
pages: $(VENV)/run.stamp
	$(BIN)/memtwin changes --markdown > docs/changes.md.new && mv docs/changes.md.new docs/changes.md
	$(BIN)/memtwin coverage > docs/coverage.md.new && mv docs/coverage.md.new docs/coverage.md

docs: $(VENV)/docs.stamp pages
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
