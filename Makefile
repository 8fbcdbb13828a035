# Every target sets up what it needs, from Python >=3.11,<3.14 and make alone.
#   make test                     make ticket ARGS="source.seed=1"
#   make PYTHON=/path/to/python3.12 test
.DEFAULT_GOAL := help
.PHONY: help test lint checked slow ticket figures docs reference format clean

VENV := .venv
BIN := $(VENV)/bin/python
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PIP := $(BIN) -m pip --disable-pip-version-check --no-input install --quiet
# A test compiles more than it computes, on one core: a process for each, as long as memory goes round.
PYTEST := $(BIN) -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal
# An int is a float, as for static checkers.
CHECKER := slth,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
ARGS ?=
# Images of containers often set this; then each of the many processes of a suite compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@echo "slth: strong lottery tickets, constructed. Targets:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'
	@echo 'Options: PYTHON=/path/to/python3.12 (first set-up), ARGS="..." (for ticket, figures, test and slow).'

test: lint ## set up, then lint, check types and run all quick tests
	@echo "==> pytest (quick tests and documentation examples)"
	@$(PYTEST) -m "not slow" $(ARGS)

lint: $(VENV)/.dev ## set up, then ruff and pyright only
	@echo "==> ruff check"
	@$(BIN) -m ruff check .
	@echo "==> ruff format --check"
	@$(BIN) -m ruff format --check .
	@echo "==> pyright"
	@$(BIN) -m pyright

checked: $(VENV)/.dev ## set up, then run the quick tests with every annotation of slth checked at each call
	@echo "==> pytest (quick tests, annotations checked by jaxtyping and beartype)"
	@$(PYTEST) -m "not slow" --ignore=tests/experiments --ignore=docs "--jaxtyping-packages=$(CHECKER)" $(ARGS)

slow: $(VENV)/.dev ## set up, then run the tests that take minutes
	@echo "==> pytest (slow tests)"
	@$(PYTEST) -m slow $(ARGS) || { status=$$?; \
	  if [ $$status -eq 5 ]; then echo "no slow test was collected: nothing to fail"; else exit $$status; fi; }

ticket: $(VENV)/.run ## set up, then build and verify a ticket: ARGS="source.seed=1 output_dir=DIR"
	@echo "==> python -m experiments.ticket $(ARGS)"
	@$(BIN) -m experiments.ticket $(ARGS)

docs: $(VENV)/.docs ## set up, then build the site of docs/ into build/site; a warning is an error
	@echo "==> sphinx"
	@$(BIN) -m sphinx -W --keep-going -q -b html docs build/site
	@echo "build/site/index.html"

figures: $(VENV)/.run ## set up, then draw the paper's figures: ARGS="names=[width,epsilon] output_dir=DIR"
	@echo "==> python -m experiments.figures $(ARGS)"
	@$(BIN) -m experiments.figures $(ARGS)

reference: $(VENV)/.run ## set up, then write docs/reference.md from the code
	@echo "==> docs/reference.md"
	@$(BIN) docs/make_reference.py

format: $(VENV)/.dev ## set up, then rewrite the code in the project's format
	@$(BIN) -m ruff check --fix .
	@$(BIN) -m ruff format .

clean: ## remove the environment and all caches (not outputs/)
	rm -rf $(VENV) .cache .hypothesis .pytest_cache .ruff_cache *.egg-info

# The development install holds all that a run needs, so it sets both stamps.
$(VENV)/.dev: pyproject.toml $(VENV)/bin/python
	@echo "==> installing slth with its development tools into $(VENV) (minutes on the first run)"
	@$(PIP) -e ".[dev]"
	@touch $(VENV)/.run $@

$(VENV)/.docs: pyproject.toml $(VENV)/.run
	@echo "==> installing Sphinx into $(VENV)"
	@$(PIP) -e ".[docs]"
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/bin/python
	@echo "==> installing slth into $(VENV) (minutes on the first run)"
	@$(PIP) -e .
	@touch $@

$(VENV)/bin/python:
	@set -e; for python in $(CANDIDATES); do \
	  "$$python" -c '$(SUPPORTED)' 2>/dev/null || continue; \
	  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make environments: its venv or ensurepip module is missing." \
	      "On Debian or Ubuntu: apt install $$(basename "$$python")-venv" >&2; lacking=1; continue; fi; \
	  echo "==> creating $(VENV) with $$("$$python" --version) ($$python)"; \
	  "$$python" -m venv --clear $(VENV); exit 0; \
	done; \
	[ -n "$$lacking" ] || echo "No Python >=3.11,<3.14 among: $(CANDIDATES)." \
	  "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1
