# Everything a developer runs, and CI runs the same. `make help` lists it.
#
# The environment is made once, in .venv, and completed when pyproject.toml changes. PYTHON chooses the interpreter.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
STAMP   := $(VENV)/.installed
BENCH   ?= .
MODEL   ?= qwen2.5-coder-0.5b
TESTS   ?= tests
SECONDS ?= 300

# `make native` and `make gpu` compile llama.cpp for the machine they run on. Some virtual machines announce AMX but do
# not let a process use its tiles; what ggml compiles for them then dies with SIGILL at the first evaluation. So AMX is
# left out wherever the compiler knows these flags (x86-64, GCC 11 or Clang 12 on).
AMX_OFF    := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
CC         ?= cc
KNOWS_AMX  := $(shell echo 'int main(void) { return 0; }' | $(CC) $(AMX_OFF) -Werror -x c -c -o /dev/null - 2>/dev/null && echo yes)
CMAKE_ARGS ?= $(if $(KNOWS_AMX),-DCMAKE_C_FLAGS='$(AMX_OFF)' -DCMAKE_CXX_FLAGS='$(AMX_OFF)')

.PHONY: help setup demo test editors lint types coverage truth bench fuzz native gpu clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP) ## make the environment and install the project and its tools into it

$(RUNTIME): pyproject.toml
	$(PYTHON) tools/environment.py $(VENV)
	@touch $@

$(STAMP): $(RUNTIME) .ci/constraints.txt
	$(PYTHON) tools/environment.py --dev $(VENV)
	@touch $@

demo: $(RUNTIME) ## fetch MODEL and complete at the cursors of the sample workspace
	@$(BIN)/repoformer-lsp model pull $(MODEL) || echo "$(MODEL) could not be fetched: going on with the model that ships"
	$(BIN)/python examples/demo.py

test: setup lint types ## check style and types, then run every test, in real editors where they can be installed too
	$(BIN)/python -m pytest

editors: setup ## only the tests in real editors (on Debian, which they are installed from)
	$(BIN)/python -m pytest tests/editors

lint: setup ## check style, formatting and spelling, of the editors' clients too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md benchmarks docs editors examples fuzz indexer lsp_server policy tests
	editors/lint.sh

types: setup ## check types, of tests and benchmarks too
	$(BIN)/mypy

coverage: setup ## run the tests in TESTS (default: all of them) and show which lines and branches they reach
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html $(TESTS)

truth: setup ## evaluate the model that ships on the truth set, and keep the results that CI compares with
	$(BIN)/python -m benchmarks.truth.snapshot

bench: setup ## measure the index on the folders in BENCH (default: this repository)
	$(BIN)/python -m benchmarks.index $(BENCH)

fuzz: setup ## fuzz what reads input from outside, for SECONDS (default: 300), guided by coverage where atheris is there
	-$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz --seconds $(SECONDS)

# pip would take the wheel of an earlier build out of its cache, which may be for another machine or have no CUDA.
NATIVE := -m pip install --disable-pip-version-check --no-cache-dir --no-binary llama-cpp-python

native: $(RUNTIME) ## compile llama.cpp for this machine, 10 minutes on two cores; used from then on
	CMAKE_ARGS="$(CMAKE_ARGS)" $(BIN)/python $(NATIVE) --verbose --editable '.[native]'

gpu: ## compile llama.cpp for an NVIDIA GPU, in an environment of its own, and measure there
	$(PYTHON) tools/environment.py .venv-gpu
	CMAKE_ARGS="$(CMAKE_ARGS) -DGGML_CUDA=on" .venv-gpu/bin/python $(NATIVE) --verbose --editable '.[native]'
	.venv-gpu/bin/python -m benchmarks.engine
	.venv-gpu/bin/python -m benchmarks.completing $(BENCH)

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) .venv-gpu .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
