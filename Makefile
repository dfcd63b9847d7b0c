# Two commands set everything up: `make demo` runs zmesh, `make test` proves it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PEERS ?= .venv-peers
SEEDS ?= 10000
MINUTES ?= 1
RUNS ?= 5
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A test run starts hundreds of interpreters; without its bytecode each compiles all of zmesh anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check types-mypy types-basedpyright bytecode format simulate fuzz bench bench-check bench-peers chaos clean

demo: $(STAMP)
	$(BIN)/zmesh demo

test: check
	$(BIN)/pytest -n auto --dist worksteal -q

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory -j 2 types-mypy types-basedpyright bytecode

types-mypy:
	$(BIN)/mypy

types-basedpyright:
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Each worker of `make test` imports all tests: what is compiled once is not compiled by all at once.
bytecode:
	@$(BIN)/pytest --collect-only -q >$(VENV)/collected || { cat $(VENV)/collected; false; }
	@tail -n 1 $(VENV)/collected

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

simulate: $(STAMP)
	$(BIN)/python -m zmesh.testing.simulate --seeds 0:$(SEEDS) --workers 0

# Each target of tests/fuzz for so many minutes; atheris has wheels for Linux and few Pythons.
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,test,fuzz]'
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

# What they print is also in .bench/; benchmarks/RESULTS.md and results.json are those of bench-peers.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.run --json .bench/bench.json --markdown .bench/bench.md

# Fails where a ratio is worse than the stored one, beyond noise, or more instructions are counted;
# takes as long as bench, and a minute more where valgrind is.
bench-check: $(STAMP)
	$(BIN)/python -m benchmarks.check

# In an environment of its own: none of the others is needed for anything else. As root on Debian
# it installs the servers too.
bench-peers:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m benchmarks.install
	$(PEERS)/bin/python -m benchmarks.run --systems all \
		--runs $(RUNS) --json benchmarks/results.json --markdown benchmarks/RESULTS.md

chaos: $(STAMP)
	set -e; for program in tests/chaos/*.py; do PYTHONPATH=. $(BIN)/python $$program; done

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,test]'
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz
