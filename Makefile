# make demo | test | lint | clean. The first use makes .venv and installs into it; later ones reuse it.
# PYTHON: the interpreter that .venv is made with. TARGET, OUTPUT: what `make demo` erases, and where to.
PYTHON ?= python3
TARGET ?= star
OUTPUT ?= runs/demo
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	$(BIN)/erase demo --target "$(TARGET)" --output "$(OUTPUT)" --overwrite

test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Removes caches and build products. Results (runs/) and the environment (.venv) stay: remove them by hand.
clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.11. On Debian or Ubuntu: apt-get install python3.11 python3.11-venv,"; \
	  echo "then: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "Installing into .venv: several minutes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,dev]"
	@touch $@
