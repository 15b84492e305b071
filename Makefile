# make demo | make test | make check: each sets up what it needs, again only when the pins change.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help setup demo test lint check format clean

help:  ## list these targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -e 's/:.*## /\t/'

$(VENV)/ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 13))' || \
	  { echo "$(PYTHON) must be Python 3.9 to 3.12; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

setup: $(VENV)/ready  ## make the virtual environment

demo: setup  ## synthetic recordings -> data, training, evaluation, export, static inference
	$(RUN) tools/demo.py

test: setup  ## every test
	$(RUN) -m pytest -n auto --dist loadfile

lint: setup  ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

check: lint  ## format, lint, types and the fast tests
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow"

format: setup  ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) demo
