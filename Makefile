# make demo, make test, make lint, make bench: each sets up .venv by itself. Needs Python 3.11 or later, pip and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

# Hundreds of modules are compiled once, into .venv, and not by each process again, whatever the environment says.
export PYTHONPYCACHEPREFIX := $(abspath $(VENV))/pycache
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/imcsim run digits-ternary-cnn --chip tim-dnn --out $(OUT)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/tile_matmul.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/events.py
	$(BIN)/python benchmarks/whole_run.py
	$(BIN)/python benchmarks/resnet18.py
	$(BIN)/python benchmarks/resnet34.py
	$(BIN)/python benchmarks/variants.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/sweep_store.py
	$(BIN)/python benchmarks/sweep_cluster.py
	$(BIN)/python benchmarks/reproduce.py
	$(BIN)/python benchmarks/others.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("imcsim needs Python 3.11 or later, got %d.%d; make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Nothing is compiled beforehand: of all files that come with the libraries, few are ever imported.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
