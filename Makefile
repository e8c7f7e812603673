# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint wheel setup clean

# constraints.txt pins what CI has seen; the CPU build of torch that pip finds first satisfies torch==2.13.0.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/ready

quickstart: setup
	$(BIN)/python experiments/quickstart/run.py

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy textdiff

# Source distribution and wheel, in dist/.
wheel: setup
	$(BIN)/python -m hatchling build -d dist

clean:
	rm -rf $(VENV) runs dist .pytest_cache .ruff_cache
