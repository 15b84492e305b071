# make demo | make test | make check: each sets up what it needs, again only when the pins change.
# make PYTHON=/path/to/python: that one, instead of the search of tools/find_python.sh.
PYTHON ?=
VENV := .venv
RUN := $(VENV)/bin/python
CASES := 1000
KIND := kind

.PHONY: help setup demo demo-video test fuzz lint check format clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -e 's/:.*## /\t/'

$(VENV)/ready: requirements.txt requirements-dev.txt constraints.txt
	@python="$$(tools/find_python.sh $(if $(PYTHON),"$(PYTHON)"))" && \
	  echo "setting up $(VENV)/ with $$python" && rm -rf $(VENV) && "$$python" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

setup: $(VENV)/ready  ## make the virtual environment

demo: setup  ## synthetic recordings -> data, training, evaluation, export, static inference
	$(RUN) tools/demo.py

demo-video: setup  ## who does what, and when: a synthetic recording -> demo/recognised.gif
	$(RUN) tools/demo.py --video

test: setup  ## every test
	$(RUN) -m pytest -n auto --dist loadfile

fuzz: setup  ## 1,000 mutated files of each kind. make fuzz CASES=100 KIND=onnx
	SKELETON_FUZZ=$(CASES) $(RUN) -m pytest -n auto tests/test_fuzz_kinds.py -k "$(KIND)"

lint: setup  ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/shellcheck .ci/run tools/*.sh test_tipc/*.sh
	$(VENV)/bin/hadolint Dockerfile

check: lint  ## format, lint, types and the fast tests
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow"

format: setup  ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) .uv demo
