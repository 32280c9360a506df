# `make run` and `make test` set up what they need on a fresh Debian 12 or Ubuntu 24.04 and then need no network.

VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  ?= /usr/bin/python3
BUILD   := build/gr-massaccess
JOBS    ?= 2
ARGS    ?=

export PYTHON
export QT_QPA_PLATFORM ?= offscreen

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format pytest module grc doctor channels-env channels-test clean distclean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Install system packages and .venv, if anything changed
	@tools/setup.sh

run: setup ## Receive simulated frames in a GNU Radio flowgraph and print how well; ARGS="--snr-db 10" passes options
	@$(BIN)/massaccess run $(ARGS)

test: setup ## Everything that must pass: lint, types, tests, and the CMake module with its tests
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory pytest
	@$(MAKE) --no-print-directory module

lint: setup ## Style and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

format: setup ## Rewrite the sources in the house style
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

pytest: setup ## The tests alone; ARGS="-m slow" runs the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

module: setup ## Build, test and stage the gr-massaccess out-of-tree module
	cmake -S gr-massaccess -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DPYTHON_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build $(BUILD) -j $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure
	cmake --install $(BUILD) --prefix $(BUILD)/stage >/dev/null
	test -f $(BUILD)/stage/share/gnuradio/grc/blocks/massaccess_receiver.block.yml

grc: setup ## Open GNU Radio Companion with the blocks; ARGS=flowgraphs/NAME.grc opens a flowgraph
	env -u QT_QPA_PLATFORM GRC_BLOCKS_PATH=$(CURDIR)/grc$${GRC_BLOCKS_PATH:+:$$GRC_BLOCKS_PATH} $(BIN)/python "$$(command -v gnuradio-companion)" $(ARGS)

doctor: setup ## Check the installation
	@$(BIN)/massaccess doctor

channels-env: ## Make .venv-channels, the environment that generates 3GPP TR 38.901 channel banks (Sionna, NumPy 2)
	$(PYTHON) -m venv .venv-channels
	.venv-channels/bin/python -m pip install -q 'torch==2.13.0' -e '.[channels]' pytest hypothesis
	@echo "now: .venv-channels/bin/massaccess channels generate --help"

channels-test: channels-env ## The tests that need Sionna
	.venv-channels/bin/python -m pytest -q tests/forward/test_channels.py

clean: ## Remove what builds and tests leave behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis python/*.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environments as well
	rm -rf $(VENV) .venv-channels
