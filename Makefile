# `make setup` is implied by everything else. ARGS reaches the tool: make test ARGS="-k ledger"
.DEFAULT_GOAL := help
.PHONY: help setup demo test nightly check check-python check-contract check-migrations generate freeze bench services build image-node image-server executable clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN    := .venv/bin
SETUP  := .venv/folkmoot-installed
EXTRAS := .[all,demo,dev]
TYPED  := $(wildcard generated sdk server node tools tests bench examples)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

setup: $(SETUP) ## the virtual environment, with everything installed in it

# uv is the fast way; where it can't be had, or doesn't know this site's package index, pip does the same.
$(SETUP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet uv 2>/dev/null || true
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '$(EXTRAS)' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --editable '$(EXTRAS)'
	@touch $@

demo: $(SETUP) ## three hospitals, one analysis, sealed results
	@$(BIN)/folkmoot demo $(ARGS)

test: $(SETUP) ## all tests but the nightly ones
	@$(BIN)/python -m pytest --quiet -n $(shell expr $$(nproc) + 2) --dist worksteal $(ARGS) # while one waits, another computes

nightly: $(SETUP) ## the tests that take minutes
	@$(BIN)/python -m pytest --quiet -m "nightly or hypothesis" --hypothesis-profile nightly -o faulthandler_timeout=4000 $(ARGS)

check: check-python check-contract check-migrations ## style, types, contract, generated code, migrations

check-python: $(SETUP)
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary $(TYPED)

check-contract: $(SETUP)
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/buf breaking --against proto/baseline.binpb
	@$(BIN)/python tools/generate.py --check
	@$(BIN)/python tools/generate_docs.py --check

check-migrations: $(SETUP)
	@$(BIN)/python tools/check_migrations.py

generate: $(SETUP) ## generated/ from proto/, the reference in docs/ from what it describes
	@$(BIN)/python tools/generate.py
	@$(BIN)/python tools/generate_docs.py

freeze: $(SETUP) ## take today's contract as the one that must not break
	@$(BIN)/buf build --exclude-source-info --output proto/baseline.binpb

bench: $(SETUP) ## measurements against their limits
	@$(BIN)/python -m bench $(ARGS)

services: ## install and start what the tests need from the machine (root)
	@tools/services $(ARGS)

build: $(SETUP) ## wheel and sdist into dist/
	@$(BIN)/python -m build --no-isolation . >/dev/null
	@ls dist

image-node: $(SETUP) ## the data station's container image; ARGS="--base IMAGE --tag NAME"
	@$(BIN)/python tools/node_image.py $(ARGS)

image-server: $(SETUP) ## the server's container image; ARGS="--base IMAGE --tag NAME"
	@$(BIN)/python tools/server_image.py $(ARGS)

executable: $(SETUP) ## the folkmoot command with the node as one file, in dist/
	@$(BIN)/python tools/executable.py dist

clean: ## everything that can be made again, the virtual environment included
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -prune -exec rm -rf {} +
