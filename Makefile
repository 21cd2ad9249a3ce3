# `make demo` and `make test` work on a fresh machine: they create .venv, install the pinned
# versions of constraints.txt into it and run. Everything else builds on the same environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONSTRAINTS := constraints.txt
JOBS ?= 2
PYTEST_ARGS ?=

# One thread a process: tests run in $(JOBS) processes, and timings compare like with like.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test test-slow test-simulations test-lower-bounds layers lint format types doctest docs bench evidence clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / -- /'

demo: $(INSTALLED)-plot ## choose a network for the digits by its bound and look at the winner
	$(BIN)/python examples/demo.py

test: $(INSTALLED)-test ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-slow: $(INSTALLED)-test ## run the long simulations as well
	$(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow" $(PYTEST_ARGS)

test-simulations: $(INSTALLED)-test ## simulate how often the bound fails, on 1000 data sets a distribution
	$(BIN)/python -m pytest -n $(JOBS) -m slow $(PYTEST_ARGS) tests/theory/test_bound_coverage.py

test-lower-bounds: ## run the tests with the oldest supported versions, in an environment of their own
	$(MAKE) test VENV=.venv-lower CONSTRAINTS=constraints-lower.txt

test-peers: $(INSTALLED)-test $(INSTALLED)-bench ## check curvature against curvlinops-for-pytorch
	$(BIN)/python -m pytest -q tests/curvature/test_peers.py

layers: $(INSTALLED)-test ## check that no module imports from its own layer or from above
	$(BIN)/python -m pytest -q tests/test_layers.py

doctest: $(INSTALLED)-test ## run every example of the docstrings, the user guide and the README
	$(BIN)/python -m pytest -n $(JOBS) --doctest-modules --doctest-glob='*.rst' sharpfit docs
	$(BIN)/python -m pytest -q tests/test_documentation_snippets.py

lint: $(INSTALLED)-lint ## check style and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)-lint ## rewrite the files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)-lint ## check the types of the theory and torch layers
	$(BIN)/mypy

docs: $(INSTALLED)-docs ## build the documentation and its gallery, warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(INSTALLED)-bench ## install the peers that the benchmarks compare with (see benchmarks/README.md)
	@echo "run the benchmarks with $(BIN)/python benchmarks/NAME.py"

# In this order: sweeps are judged and drawn, then ranked with the networks of the suites that
# benchmarks/selection/train.py has trained. Everything goes on where it stopped.
evidence: $(INSTALLED)-bench ## train what the evidence lacks and rebuild its tables and figures (hours from nothing)
	cd benchmarks/experiments && $(CURDIR)/$(BIN)/python sweeps.py --jobs $(JOBS)
	cd benchmarks/experiments && $(CURDIR)/$(BIN)/python flat_minima.py
	cd benchmarks/ranking && $(CURDIR)/$(BIN)/python measure.py --jobs $(JOBS)
	cd benchmarks/ranking && $(CURDIR)/$(BIN)/python factorial.py --jobs $(JOBS)
	cd benchmarks/ranking && $(CURDIR)/$(BIN)/python report.py --write

clean: ## remove what the targets above made
	rm -rf .venv .venv-lower build demo-output docs/_build docs/auto_examples docs/api/generated

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sharpfit needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: an environment is installed once and again when the pins change.
$(INSTALLED)-%: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[$*]"
	@touch $@
