# continuity: `make` alone lists what there is. Nothing here needs root or a system package beyond
# Python 3.11 with its venv module; `make setup` says what is missing.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:

OUTPUT ?= text
PYTEST ?=
WORKERS ?= 2
PYTHON ?=
BIN := .venv/bin
FAST := not real and not slow
# Most tests wait for real parts or for commands; a file stays on one worker, so that what its tests share is made once.
SPLIT := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

export PYTHON

.PHONY: help setup demo test check lint fast sim bench docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv from the hashed requirements; leaves the command at .venv/bin/continuity
	@requirements/install

demo: setup ## two sites on this machine: write, lose home, fail over, verify, fail back, verify (OUTPUT=text|json)
	@$(BIN)/continuity lab demo --output $(OUTPUT)

test: setup lint ## everything: formatting, types, layers, and the whole test suite (PYTEST="more options", WORKERS=2)
	@$(BIN)/python -m pytest $(SPLIT) $(PYTEST)

check: setup lint ## formatting, types, layers and the fast tests; run it before each commit
	@$(BIN)/python -m pytest $(SPLIT) -m "$(FAST)" $(PYTEST)

lint: setup ## formatting, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fast: setup ## the fast tests alone (no real parts)
	@$(BIN)/python -m pytest $(SPLIT) -q -m "$(FAST)" $(PYTEST)

sim: setup ## replay one simulated run: make sim SEED=42
	@test -n "$(SEED)" || { echo "sim: name a seed, for example: make sim SEED=42" >&2; exit 2; }
	@$(BIN)/python -m orchestrator.sim --seed $(SEED)

bench: setup ## ratios against the hand-made baseline and an Ansible playbook, with budgets
	@$(BIN)/python -m bench

docs: setup ## regenerate what is generated: diagrams, tables, JSON Schemas
	@$(BIN)/python -m docs.generate

lock: setup ## solve the requirements anew (UPGRADE=1 takes newer versions)
	@UPGRADE=$(UPGRADE) requirements/lock

clean: ## remove what was made here: .venv, caches
	@rm -rf .venv .venv.lock build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
