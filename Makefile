# Every target makes .venv first where it is missing. Another Python:
#   make test PYTHON=python3.12 VENV=.venv312
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m jaxseg_da.main

.PHONY: venv demo benchmark-streets test test-slow lint format

venv: $(VENV)/.dev

$(VENV)/.runtime: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxseg_da needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Source-only, DACS, control, AdaBN and oracle on the embedded benchmark.
demo: $(VENV)/.runtime
	$(RUN) --config=configs/demo.py --workdir=runs/demo

# The same over three seeds, with paired differences.
benchmark-streets: $(VENV)/.runtime
	$(BIN)/python -m jaxseg_da.seeds --config=configs/demo.py --workdir=runs/benchmark

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
