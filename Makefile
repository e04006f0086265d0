# The newcomer's commands. Everything lands in .venv and .keeptake; nothing needs root.
# A Python that this user may run: one under another user's home would make a useless environment.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 /usr/bin/python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
# Containers like to set it; then each of a suite's hundreds of processes compiles Dagster's modules anew, 5 s of CPU each.
unexport PYTHONDONTWRITEBYTECODE
# Byte-compiling thousands of files that are never imported takes longer than fetching them.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

.PHONY: setup demo up test check docs soak clean

setup: .venv/installed

.venv/installed: pyproject.toml Makefile keeptake/torchaudio_cpu.py
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found: install one, or say make PYTHON=/path/to/python3"; exit 2; }
	@echo "== making .venv with $(PYTHON) and installing (2 GB; minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) -e .
	@# Its metadata demands a TensorFlow of 2019; only the weights inside are used.
	@$(PIP) --no-deps musicnn==0.1.0
	@$(BIN)/python -m keeptake.torchaudio_cpu
	@touch $@

.venv/installed-tests: .venv/installed
	@echo "== installing what the tests need"
	@$(PIP) -e '.[test,check,text]'
	@touch $@

demo: setup
	@$(BIN)/keeptake demo

up: setup
	@$(BIN)/keeptake up

test: .venv/installed-tests
	$(BIN)/python -m pytest

check: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m keeptake.ledger.dictionary > docs/data-dictionary.md

soak: .venv/installed-tests
	$(BIN)/python -m pytest -m soak

clean:
	rm -rf .venv .keeptake
