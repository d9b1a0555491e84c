# make repro   set-up and the main job on the embedded default; `make repro TARGETS=` builds everything,
#              `make repro TARGETS=evaluate_regression` the model that writes numbers
# make test    set-up and the tests; `make test-pipeline` runs the whole DAG in a clone, from nothing
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
PYTEST_ARGS ?=
TARGETS ?= evaluate

.PHONY: setup repro pull test test-pipeline test-axolotl axolotl lint bench clean

setup: $(VENV)/.installed

# torch first and alone: see pyproject.toml
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

repro: setup
	@python -m stages.core.lockfile
	dvc repro $(TARGETS)
	@groundtune report

# from the remote, what the current parameters need; after it `dvc repro` has nothing to run
pull: setup
	dvc pull

test: setup
	pytest -m "not pipeline and not axolotl" $(PYTEST_ARGS)

test-pipeline: setup
	pytest -m pipeline $(PYTEST_ARGS)

# axolotl pins libraries that ours cannot live with: it has an environment of its own (4 GB)
axolotl: .venv-axolotl/.installed

.venv-axolotl/.installed: conf/axolotl/requirements.lock
	$(PYTHON) -m venv .venv-axolotl
	.venv-axolotl/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' $<)"
	.venv-axolotl/bin/pip install --quiet --disable-pip-version-check --constraint $< "$$(grep '^axolotl==' $<)"
	@touch $@

test-axolotl: setup axolotl
	pytest -m axolotl $(PYTEST_ARGS)

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: setup
	python tests/benchmarks/pipeline.py
	python tests/benchmarks/regression.py
	python tests/benchmarks/knowledge_base.py
	python tests/benchmarks/ingest.py
	python tests/benchmarks/local_engine.py
	python tests/benchmarks/proxy.py
	python tests/benchmarks/sweep.py
	python tests/benchmarks/interruption.py --kills 60
	python tests/benchmarks/ddp.py

clean:
	rm -rf $(VENV) .cache runs
