# `make demo` and `make test` need only Python 3.11 to 3.14 and a network.
# Choose the Python with `make demo PYTHON=python3.13`, and the folder of the environment with `make demo VENV=...`.

SHELL := /bin/bash
VENV ?= .venv
ANNOTATOR := .annotator
TORCH_VENV ?= .venv-torch
# The first that runs and can make environments; Debian's python3 cannot without its package python3-venv.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin
# For `make test-fast`: rooms whose tests compile little.
FAST := $(addprefix tests/,faces synthetic diffusion checkpoints configs hardware animation data launch test_families.py \
	test_files.py test_public_api.py models/attention models/durian models/unet planning/test_hlo.py training/test_config.py)
# The tested versions for the environment's Python; recipes expand it, after the environment exists.
CONSTRAINTS = $(shell $(BIN)/python -c 'import durian_jax.installation as i; print(i.constraints())')
# pip names each package and shows its download, because the installation takes minutes.
INSTALL = -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
PIP = $(BIN)/python $(INSTALL)
# Compiling every installed file takes half of pip's time; Python compiles files when it imports them.
export PIP_COMPILE := 0

.PHONY: help demo develop test test-slow test-fast lint bench parity torch annotator clean

help:
	@echo "make demo       install into $(VENV), run the demo, write demo/index.html"
	@echo "make develop    install into $(VENV) all that tests need, and the annotator's models into $(ANNOTATOR)"
	@echo "make test       make develop, then run all tests but the slow ones"
	@echo "make test-slow  run the slow tests: whole commands, clusters, notebooks, full-size compilations"
	@echo "make test-fast  run the rooms whose tests compile little, in minutes, for daily work"
	@echo "make lint       check style, imports between rooms, docstrings and types"
	@echo "make bench      measure the speed of rendering and of the data pipeline"
	@echo "make parity     compare every network with PyTorch at full size (16 GB of memory), write docs/parity.*"
	@echo "make torch      install into $(TORCH_VENV) the PyTorch runtime of exported models, without JAX"
	@echo "make annotator  download the models of the face annotator into $(ANNOTATOR)"
	@echo "make clean      remove everything that the other targets wrote, except docs"
	@echo "One file or one test: $(BIN)/python -m pytest -n 0 FILE -k NAME. More: CONTRIBUTING.md"

# Stamp files: reinstall an environment only when its requirements have changed.
$(VENV)/python.stamp:
	@if [ -z "$(PYTHON)" ]; then echo "durian: error: expected Python 3.11 to 3.14 with its module ensurepip, found" \
		"none; install one or give its path: make PYTHON=/path/to/python3.13" >&2; exit 2; fi
	@echo "make: creating $(VENV) for $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/install.stamp: $(VENV)/python.stamp setup.py constraints.txt constraints-newest.txt
	@echo "make: installing into $(VENV) about 80 packages: JAX, Flax, NumPy, OpenCV, PyAV, ... (1.2 GB on disk)"
	@$(PIP) -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/install.stamp
	@echo "make: installing into $(VENV) what tests need: pytest, Apache Beam, PyTorch, ONNX Runtime, ..."
	@$(PIP) -e '.[test,notebook,prepare,torch,identity,heic,provenance]'
	@touch $@

$(ANNOTATOR)/install.stamp: $(VENV)/install.stamp durian_jax/annotator/files.py
	$(BIN)/durian annotator --folder $(ANNOTATOR)
	@touch $@

# The TPU compiler for `durian plan` exists for Linux on x86-64 only.
$(VENV)/compiler.stamp: $(VENV)/install.stamp
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then $(BIN)/durian plan --install; fi
	@touch $@

demo: $(VENV)/install.stamp
	@echo "make: running durian demo; the first run compiles for a minute or two"
	@$(BIN)/durian demo --out demo

develop:
	@$(MAKE) --no-print-directory -j2 $(VENV)/test.stamp $(ANNOTATOR)/install.stamp $(VENV)/compiler.stamp

# `develop` installs these; tests that need them fail without them, and do not skip.
TOOLS = annotator$(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(comma)compiler)
comma = ,

test: develop
	DURIAN_TEST_TOOLS=$(TOOLS) $(BIN)/python -m pytest -m "not slow"

test-slow: develop
	DURIAN_TEST_TOOLS=$(TOOLS) $(BIN)/python -m pytest -m slow

test-fast: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m "not slow" $(FAST)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/interrogate durian_jax
	$(BIN)/mypy

bench: $(VENV)/install.stamp
	@for script in benchmarks/synthetic.py benchmarks/data.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

parity: $(VENV)/test.stamp
	$(BIN)/python -m tests.parity --width full --markdown docs/parity.md --json docs/parity.json

$(TORCH_VENV)/install.stamp: $(VENV)/python.stamp setup.py constraints.txt constraints-newest.txt durian_jax/pytorch/requirements.txt
	@echo "make: installing into $(TORCH_VENV) PyTorch and what exported models need"
	@$(VENV)/bin/python -m venv $(TORCH_VENV)
	@$(TORCH_VENV)/bin/python $(INSTALL) -r durian_jax/pytorch/requirements.txt
	@$(TORCH_VENV)/bin/python $(INSTALL) --no-deps -e .
	@touch $@

torch: $(TORCH_VENV)/install.stamp

annotator: $(ANNOTATOR)/install.stamp

clean:
	rm -rf $(VENV) $(ANNOTATOR) $(TORCH_VENV) demo build .cache .*_cache *.egg-info
