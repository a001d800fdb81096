# Nothing but git, make and python3 is needed: every target builds .venv first.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: setup demo test check bench docs clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/ribcage demo --out demo

test: .venv/installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/data.py

docs: .venv/installed
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv demo site .pytest_cache .ruff_cache .mypy_cache
