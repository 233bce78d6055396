# Everything that can be built, tested or drawn from a clone; `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# Each process computes with one thread, and pytest runs WORKERS processes: on small tensors two
# threads of one process wait for each other longer than they compute.
WORKERS ?= 2
DEMO_THREADS ?= 1
PYTEST_ARGS ?=
# What `make bench` passes on, for instance BENCH_ARGS="vae-small --rounds 3".
BENCH_VENV := .venv-bench
BENCH_ARGS ?=
# What `make reproduce` passes to each script, for instance REPRODUCE_ARGS="--device cuda".
REPRODUCE_ARGS ?=

SOURCES := pyro_deepgen tests tutorials $(wildcard benchmarks)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs-check notebooks reproduce bench wheel clean distclean

help: ## list the targets
	@grep -hE '^[a-zA-Z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The stamp is the last thing written, so that an interrupted install starts again. The pinned
# setuptools comes first and builds the project itself, so that nothing unpinned takes part.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) setuptools
	$(PIP_INSTALL) --no-build-isolation -e ".[dev]"
	@touch $@

.PHONY: .venv
.venv: $(VENV)/.installed ## make the virtual environment with the tested versions

demo: $(VENV) ## train a VAE on handwritten digits; pictures go to demo/
	OMP_NUM_THREADS=$(DEMO_THREADS) $(BIN)/python tutorials/demo.py

test: $(VENV) ## run the whole test suite, documentation included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(VENV) ## check format, style and types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(VENV) ## put the code in the one format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs-check: $(VENV) ## run the docstring examples and the README's code blocks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/test_documentation.py $(PYTEST_ARGS)

notebooks: $(VENV) ## render tutorials/NN_*.py to notebooks with their pictures
	OMP_NUM_THREADS=$(DEMO_THREADS) $(BIN)/python tutorials/render.py tutorials/[0-9][0-9]_*.py

# One of them trains another library's flows too, which only the benchmarks' environment has.
reproduce: $(VENV) $(BENCH_VENV)/.installed ## run the published experiments (hours; they resume where they stopped)
	set -e; for script in benchmarks/reproduce/*.py; do \
		python=$(BIN)/python; \
		case "$$script" in */flow_density.py) python=$(BENCH_VENV)/bin/python;; esac; \
		"$$python" "$$script" $(REPRODUCE_ARGS); done

# The libraries that we compare with have their own environment; ours comes with the tested versions.
$(BENCH_VENV)/.installed: setup.cfg constraints.txt benchmarks/requirements.txt \
		benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		setuptools
	$(BENCH_VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		-c benchmarks/constraints.txt --no-build-isolation -r benchmarks/requirements.txt -e .
	@touch $@

bench: $(BENCH_VENV)/.installed ## measure speed beside other libraries; rewrites benchmarks/README.md
	$(BENCH_VENV)/bin/python -m benchmarks $(BENCH_ARGS)

wheel: $(VENV) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## remove what was built, all but the environment
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(BENCH_VENV)/*' \
		-prune -exec rm -rf {} +

distclean: clean ## remove the environments as well
	rm -rf $(VENV) $(BENCH_VENV)
