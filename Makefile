# make quickstart         transcribe the example recordings (installs first; a second time it finds nothing to do)
# make quickstart-graph   the whole folder: fine-tune, quantise, transcribe, embed, train a chat model; minutes
# make test               style, types, tests
# make test-slow          the tests that take long: ray, kills, races, the quickstart end to end
# make test-long         minutes each: two processes train one model in every way, through the job; CI leaves them out
# make install            a .venv with all that this machine can use

PYTHON ?= python3
# The CPU and CUDA builds of torch share this version; with another index, set e.g. TORCH="torch==2.13.0+cpu".
TORCH ?= torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin

.PHONY: install quickstart quickstart-graph test test-slow test-long lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "runner needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet "$(TORCH)"
	$(RUN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

quickstart: install
	$(RUN)/runner apply specs/quickstart/asr.yaml
	$(RUN)/runner artifacts show quickstart-asr

quickstart-graph: install
	$(RUN)/runner apply specs/quickstart
	$(RUN)/runner artifacts ls

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

test: lint
	$(RUN)/python -m pytest -m "not slow"

test-slow: install
	$(RUN)/python -m pytest -m "slow and not long"

test-long: install
	$(RUN)/python -m pytest -m long

clean:
	rm -rf $(VENV) build dist *.egg-info
