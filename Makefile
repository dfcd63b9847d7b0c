# Two commands set everything up: `make demo` runs zmesh, `make test` proves it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SEEDS ?= 10000
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format simulate bench chaos clean

demo: $(STAMP)
	$(BIN)/zmesh demo

test: check
	$(BIN)/pytest -n auto --dist worksteal -q

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

simulate: $(STAMP)
	$(BIN)/python -m zmesh.testing.simulate --seeds 0:$(SEEDS) --workers 0

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

chaos: $(STAMP)
	set -e; for program in tests/chaos/*.py; do PYTHONPATH=. $(BIN)/python $$program; done

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,test]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
