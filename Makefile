# The commands of the README. Everything runs in .venv, which the first of them creates.
PYTHON ?= python3
BIN    := .venv/bin
OUT    ?= runs/quickstart
# small tensors lose to thread traffic; the update has its own pool
export OMP_NUM_THREADS ?= 1

.PHONY: setup test lint check fix quickstart bench results wheel clean

setup: .venv/.ready
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py

check: lint test

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quickstart: setup
	$(BIN)/metarl train quickstart --out $(OUT) --overwrite $(if $(SHORT),--iterations 3)

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

results: setup
	$(BIN)/python -m metarl.experiments.results

wheel: setup
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist *.egg-info
