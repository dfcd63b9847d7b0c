# Two commands set everything up: `make demo` runs zmesh, `make test` proves it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SEEDS ?= 10000
MINUTES ?= 1
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A test run starts hundreds of interpreters; without its bytecode each compiles all of zmesh anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check types-mypy types-basedpyright format simulate fuzz bench chaos clean

demo: $(STAMP)
	$(BIN)/zmesh demo

test: check
	$(BIN)/pytest -n auto --dist worksteal -q

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory -j 2 types-mypy types-basedpyright

types-mypy:
	$(BIN)/mypy

types-basedpyright:
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

simulate: $(STAMP)
	$(BIN)/python -m zmesh.testing.simulate --seeds 0:$(SEEDS) --workers 0

# Each target of tests/fuzz for so many minutes; atheris has wheels for Linux and few Pythons.
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,test,fuzz]'
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

chaos: $(STAMP)
	set -e; for program in tests/chaos/*.py; do PYTHONPATH=. $(BIN)/python $$program; done

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,test]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz
