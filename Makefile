# Commands for developers and for CI. `make help` lists them.
#
# The environment is created in .venv, and updated when pyproject.toml changes. PYTHON selects the interpreter.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
STAMP   := $(VENV)/.installed
BENCH   ?= .
MODEL   ?= qwen2.5-coder-0.5b
TESTS   ?= tests
SECONDS ?= 300

# `make native` and `make gpu` compile llama.cpp for this machine. Some virtual machines report AMX, but do not let a
# process use the AMX tiles: a library that is compiled for AMX dies there with SIGILL at the first evaluation. So AMX is
# disabled if the compiler has these flags (on x86-64: GCC 11, Clang 12, or later).
AMX_OFF    := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
CC         ?= cc
KNOWS_AMX  := $(shell echo 'int main(void) { return 0; }' | $(CC) $(AMX_OFF) -Werror -x c -c -o /dev/null - 2>/dev/null && echo yes)
CMAKE_ARGS ?= $(if $(KNOWS_AMX),-DCMAKE_C_FLAGS='$(AMX_OFF)' -DCMAKE_CXX_FLAGS='$(AMX_OFF)')

.PHONY: help setup demo test editors lint types coverage truth bench fuzz native gpu clean
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP) ## create the environment with the project and its tools

$(RUNTIME): pyproject.toml
	$(PYTHON) tools/environment.py $(VENV)
	@touch $@

$(STAMP): $(RUNTIME) .ci/constraints.txt
	$(PYTHON) tools/environment.py --dev $(VENV)
	@touch $@

demo: $(RUNTIME) ## download MODEL and complete at the cursors of the sample workspace
	@$(BIN)/repoformer-lsp model pull $(MODEL) || echo "$(MODEL) could not be downloaded: using the built-in model"
	$(BIN)/python examples/demo.py

test: setup lint types ## check style and types, and run all tests, also in those real editors that can be installed
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

editors: setup ## run only the tests in real editors (on Debian)
	$(BIN)/python -m pytest tests/editors

lint: setup ## check style, formatting and spelling, including the editors' clients
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md benchmarks docs editors examples fuzz indexer lsp_server policy tests
	editors/lint.sh

types: setup ## check types, including tests and benchmarks
	$(BIN)/mypy

coverage: setup ## run the tests in TESTS (default: all) and show which lines and branches they run
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html $(TESTS)

truth: setup ## evaluate the built-in model on the truth set, and store the results that CI compares with
	$(BIN)/python -m benchmarks.truth.snapshot

bench: setup ## measure the index on the folders in BENCH (default: this repository)
	$(BIN)/python -m benchmarks.index $(BENCH)

fuzz: setup ## fuzz the parsers of external input for SECONDS (default: 300), guided by coverage if atheris is installed
	-$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz --seconds $(SECONDS)

# Without `--no-cache-dir`, pip would use a wheel from its cache, which may be for another machine or lack CUDA.
NATIVE := -m pip install --disable-pip-version-check --no-cache-dir --no-binary llama-cpp-python

native: $(RUNTIME) ## compile and install llama.cpp for this machine (10 minutes on two cores)
	CMAKE_ARGS="$(CMAKE_ARGS)" $(BIN)/python $(NATIVE) --verbose --editable '.[native]'

gpu: ## compile llama.cpp for an NVIDIA GPU in a separate environment, and run benchmarks there
	$(PYTHON) tools/environment.py .venv-gpu
	CMAKE_ARGS="$(CMAKE_ARGS) -DGGML_CUDA=on" .venv-gpu/bin/python $(NATIVE) --verbose --editable '.[native]'
	.venv-gpu/bin/python -m benchmarks.engine
	.venv-gpu/bin/python -m benchmarks.completing $(BENCH)

clean: ## remove the environments and the files of tools
	rm -rf $(VENV) .venv-gpu .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
