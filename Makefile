# Two commands matter: `make demo` and `make test`.  Both set up everything they need in .venv, and are safe to repeat.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DONE   := $(VENV)/.installed

.PHONY: demo test lint clean
.DEFAULT_GOAL := demo

$(DONE): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Sightline needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(DONE)

demo: $(DONE)
	$(BIN)/sightline look --sample --out demo
	@echo "Open demo/*.html in a browser."

test: $(DONE)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo build dist
