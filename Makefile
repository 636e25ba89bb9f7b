# Every target makes .venv by itself and installs what it needs, once. Tool settings: pyproject.toml.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# DEVICE=cuda, on a machine with an NVIDIA GPU, works in an environment of its own: onnxruntime and
# onnxruntime-gpu install over each other.
DEVICE ?= cpu
ifeq ($(filter cpu cuda,$(DEVICE)),)
$(error DEVICE is cpu or cuda, got "$(DEVICE)")
endif
VENV ?= $(if $(filter cuda,$(DEVICE)),.venv-cuda,.venv)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# A stamp is touched when its install succeeded and is out of date when the dependencies changed.
BASE := $(VENV)/.installed-base
DEMO := $(VENV)/.installed-demo
TEST := $(VENV)/.installed-test
SLOW := $(VENV)/.installed-slow

.PHONY: help demo serve test test-slow test-gpu on-gpu test-all check lint type proto proto-check bench load clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(DEMO)  ## train a model, serve it, send it real requests, print what happened
	$(BIN)/python -m server demo $(ARGS)

serve: $(DEMO)  ## serve the models in MODELS=dir (more options in ARGS=...)
	$(BIN)/python -m server serve $(MODELS) $(ARGS)

test: $(TEST)  ## the default suite: no GPU, no network beyond localhost
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(SLOW)  ## the long tests that `test` leaves out
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

test-gpu:  ## the tests of CUDA, on a machine with an NVIDIA GPU (skipped elsewhere)
	$(MAKE) --no-print-directory DEVICE=cuda on-gpu

on-gpu: $(TEST)
	$(BIN)/python -m pytest -m gpu -rs tests/gpu $(ARGS)

test-all: test test-slow  ## test and test-slow

check: lint type proto-check test  ## everything a change must pass

lint: $(TEST)  ## format, lint rules, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

type: $(TEST)  ## mypy --strict
	$(BIN)/mypy

proto: $(TEST)  ## regenerate the stubs in protos/
	$(BIN)/python -m protos.generate

proto-check: $(TEST)  ## fails if the committed stubs are not those of the .proto files
	$(BIN)/python -m protos.generate --check

bench: $(TEST)  ## served throughput and latency against the bare model (JSON on stdout)
	$(BIN)/python -m loadtests.bench $(ARGS)

load: $(TEST)  ## locust, headless, with a report in loadtests/reports/
	$(BIN)/python -m loadtests.load $(ARGS)

clean:  ## remove everything that make made
	rm -rf $(VENV) .venv-cuda build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis loadtests/reports
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BASE):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed and was not found; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): pyproject.toml constraints.txt | $(BASE)
	@echo "Installing the server and the demo's libraries into $(VENV)"
	$(PIP) --editable '.[$(DEVICE),sklearn]'
	@touch $@

# torch first: a plain torch wheel of the wanted version wins over the newest one with gigabytes of CUDA.
$(TEST): pyproject.toml constraints.txt | $(BASE)
	@echo "Installing the test extras into $(VENV)"
ifeq ($(DEVICE),cuda)
	$(PIP) --editable '.[cuda,sklearn,dev]'
else
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable '.[cpu,convert,openvino,tables,sql,dev]'
endif
	@touch $(DEMO) $@

# TensorFlow takes more than 1 GB, so only the tests that need it bring it.
$(SLOW): $(TEST)
	@echo "Installing TensorFlow into $(VENV)"
	$(PIP) --editable '.[tensorflow]'
	@touch $@
