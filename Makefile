# Sets up its own virtual environment (Python 3.11 or later, pip) and runs everything in it.
.DEFAULT_GOAL := help
.PHONY: help demo test science lint format clean

VENV   ?= .venv
# The constraints were tested on 3.11: prefer it where several are installed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
            command -v $$p 2>/dev/null && break; done)
BIN    := $(VENV)/bin
# An index of CPU-only torch wheels spares a machine without a GPU the CUDA libraries:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PIP_INSTALL  = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
               $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
DEMO_ARGS   ?=
PYTEST_ARGS ?=
NATURE       ?= work/nature/nature-3.nc
SCIENCE_WORK ?= work/science
SCIENCE_ARGS ?=

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "alignda needs Python 3.11 or later on PATH; name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alignda needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Name another with PYTHON=..." >&2; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# Each stamp says: installed from this pyproject.toml and these constraints.
$(VENV)/.alignda: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing alignda into $(VENV) (the first time takes some minutes)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.alignda-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing alignda with its test tools into $(VENV) (the first time takes some minutes)"
	@$(PIP_INSTALL) -e '.[test]'
	@touch $(VENV)/.alignda $@

demo: $(VENV)/.alignda ## run the whole loop on the shipped sample atmosphere
	$(BIN)/alignda demo $(DEMO_ARGS)

test: $(VENV)/.alignda-test ## run the test suite (PYTEST_ARGS='-k cycle' and the like)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

science: $(VENV)/.alignda-test ## regenerate the figures of docs/science.md (days; SCIENCE_ARGS=--list shows the commands)
	@test -f $(NATURE) || { echo "make the truth first: alignda nature --seed 3 --start 2020-01-01 --days 730 --out $(NATURE)" >&2; exit 1; }
	$(BIN)/python -m benchmarks.science --nature $(NATURE) --work $(SCIENCE_WORK) $(SCIENCE_ARGS)

lint: $(VENV)/.alignda-test ## ruff, mypy --strict, import directions, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.alignda-test ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment, caches and build products
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
