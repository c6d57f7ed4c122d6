# make quickstart   transcribe the example recordings (installs first; a second time it finds nothing to do)
# make test         everything CI checks: style, types, tests
# make install      a .venv with all that this machine can use

PYTHON ?= python3
# The CPU and CUDA builds of torch share this version; with another index, set e.g. TORCH="torch==2.13.0+cpu".
TORCH ?= torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin

.PHONY: install quickstart test lint clean

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

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

test: lint
	$(RUN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info
