# noded. `make` alone lists the targets; each sets up all that it needs by itself.
.DEFAULT_GOAL := help
.PHONY: help demo test unit fuzz lint regen prove soak bench vm deb rpm roots lock packages venv clean
.NOTPARALLEL:

BIN := .venv/bin
# Seed of everything random in the tests; change it to explore: make test SEED=7
SEED ?= 1
# How long `make fuzz` runs each parser.
SECONDS ?= 600
PYTEST := $(BIN)/python -m pytest --hypothesis-seed=$(SEED)
PYTEST_FLAGS ?=
# Namespaces of the tests' own, where there is root to make them.
ISOLATE := tests/support/isolate.sh

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-9s %s\n' "$$target" "$$text"; done

demo: ## one pod from image to clean node, with every step shown (root)
	@packaging/setup/packages.sh demo
	@packaging/setup/venv.sh runtime
	@$(BIN)/noded demo $(DEMO_FLAGS)

test: packages venv lint ## everything: lint, types, generated code, and all tests (what needs root is skipped without it)
	tests/support/workers.sh $(BIN)/python --hypothesis-seed=$(SEED) $(PYTEST_FLAGS)

unit: venv ## only the tests that touch no host and need no root
	$(PYTEST) -m 'not root' $(PYTEST_FLAGS)

fuzz: venv ## the parsers against SECONDS=600 of hostile input each, TARGETS="spdy tar" for some; coverage-guided with atheris; tests/fuzz/RESULTS.md
	nice $(BIN)/python -m tests.fuzz --seconds=$(SECONDS) --seed=$(SEED) $(TARGETS)

lint: venv ## ruff, formatting, mypy, import layers
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check --diff .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

regen: venv ## write the generated files anew: noded/proto from proto/, the example configuration, pages of docs/
	$(BIN)/python proto/generate.py
	$(BIN)/noded config default >packaging/noded.toml
	$(BIN)/python docs/generate.py

prove: packages venv roots ## the full counts of every test, part by part and resumable; writes RESULTS.md (root)
	$(ISOLATE) $(BIN)/python -m tests.support.prove --seed $(SEED) $(PARTS)

soak: packages venv ## random calls and faults for SECONDS (600), checked against a model, in parts that add up; SOAK_FLAGS=--pace=1 for hours in the background; tests/soak/RESULTS.md (root)
	$(ISOLATE) $(BIN)/python -m tests.soak --seed $(SEED) --seconds $(or $(SECONDS),600) $(SOAK_FLAGS)

bench: ## noded beside containerd and the floor, with a table of ratios; BENCH=quick for a short run (root)
	@packaging/setup/packages.sh bench
	@packaging/setup/venv.sh dev
	$(ISOLATE) $(BIN)/python -m tests.bench $(if $(filter quick,$(BENCH)),--quick) $(BENCH_FLAGS)

vm: venv ## noded's packages on a real Debian with systemd and AppArmor, in a virtual machine (root, minutes)
	@packaging/setup/packages.sh vm
	NODED_VM=1 $(PYTEST) -v -s --durations=0 tests/vm $(PYTEST_FLAGS)

deb: venv ## noded and its plugins as Debian packages, in dist/
	PYTHONPATH=packaging $(BIN)/python -m noded_packaging deb

rpm: venv ## noded and its plugins as RPM packages, in dist/ (needs rpmbuild)
	PYTHONPATH=packaging $(BIN)/python -m noded_packaging rpm

roots: venv ## what the tests of the packages need from the network: wheels, root file systems (root)
	@packaging/setup/roots.sh

lock: ## write the lock files anew (make lock UPGRADE=1 takes newer versions)
	@packaging/setup/lock.sh $(if $(UPGRADE),--upgrade)

packages: ## install the system programs that the tests run, where they are missing
	@packaging/setup/packages.sh test

venv: ## .venv with the locked development packages, noded and its plugins
	@packaging/setup/venv.sh dev

clean: ## remove what make has made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +
