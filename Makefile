# The front door. Everything installs itself into .venv, from whatever index pip is configured for.
#
#   make demo     the story on this machine: only core and the mDNS plugin are installed
#   make PYTHON=/path/to/python3.12 test    to choose the interpreter

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PROJECTS := core/pyproject.toml $(PLUGINS:%=%/pyproject.toml)

# Tests mostly wait (for TTLs, for watches), so more workers than cores.
WORKERS ?= 6
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)
# Longest first: a group of tests stays on one worker.
COVERED := tests/conformance tests/unit tests/typing
SERVED := $(shell grep -ls pytest.mark.server tests/conformance/*.py)
UNCOVERED := $(SERVED) tests/integration tests/interop tests/faults
REPORTS := .reports
MATRIX := docs/plugin-authors/backends.md

.PHONY: help
help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '  make %-14s %s\n' "$$t" "$$d"; done

$(VENV)/.made:
	@python=$$(tools/find-python $(PYTHON)) || exit 1; \
	echo "making $(VENV) with $$python"; \
	rm -rf $(VENV) && "$$python" -m venv $(VENV) && touch $@

$(VENV)/.run: $(VENV)/.made core/pyproject.toml plugins/mdns/pyproject.toml
	$(PIP) install --quiet --editable core --editable plugins/mdns
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(PROJECTS) tools/dev-requirements.txt
	$(PIP) install --quiet --editable core $(PLUGINS:%=--editable %) --requirement tools/dev-requirements.txt
	@touch $@ $(VENV)/.run

.PHONY: dev
dev: $(VENV)/.dev  ## Install everything for development into .venv

.PHONY: demo
demo: $(VENV)/.run  ## Two services, a client, a kill and a restart, over mDNS on this machine
	@$(BIN)/svcreg demo

.PHONY: check
check: $(VENV)/.dev  ## Format, lint, types and unit tests: before every commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) tests/unit

.PHONY: format
format: $(VENV)/.dev  ## Format the tree and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: servers
servers: $(VENV)/.dev
	@if [ -x tools/install-servers ]; then tools/install-servers; fi

# Coverage counts unit and conformance tests only, and of these the ones that need no server: a line
# that merely a browse over a real network happens to reach is not a line that is tested. The second
# run goes faster without it. Both runs happen even when the first one fails.
.PHONY: test
test: $(VENV)/.dev servers  ## Every test, in parallel, with the coverage of core
	@status=0; \
	$(PYTEST) -m "not server" --svcreg-report=$(REPORTS)/local.json \
		--cov --cov-report=term --cov-fail-under=90 $(COVERED) || status=1; \
	$(PYTEST) --svcreg-report=$(REPORTS)/servers.json $(UNCOVERED) || status=1; \
	exit $$status

# What stands above the table stays as it is written.
$(REPORTS)/backends.md: $(wildcard $(REPORTS)/*.json) $(MATRIX)
	@{ sed '/^| /,$$d' $(MATRIX); $(BIN)/python -m svcreg.testing.report $(REPORTS)/local.json \
		$(REPORTS)/servers.json --only memory sqlite mdns consul etcd; } > $@

.PHONY: matrix
matrix: $(REPORTS)/backends.md  ## Write the table of what the backends can do, from the last make test
	cp $< $(MATRIX)

.PHONY: check-matrix
check-matrix: $(REPORTS)/backends.md
	diff -u $(MATRIX) $<

.PHONY: test-pythons
test-pythons:  ## The suites that need no server, on every supported Python found here
	tools/test-pythons

.PHONY: test-latest
test-latest: $(VENV)/.dev  ## Consul's and etcd's tests against 1.22 and 3.6, which are built with the Go toolchain
	tools/install-servers consul-latest etcd-latest
	SVCREG_CONSUL_VERSION=1.22 $(PYTEST) tests/conformance/test_consul.py tests/integration/consul tests/faults/consul
	SVCREG_ETCD_VERSION=3.6 $(PYTEST) tests/conformance/test_etcd.py tests/integration/etcd tests/faults/etcd

.PHONY: bench
bench: $(VENV)/.dev  ## Run every benchmark
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

.PHONY: build
build: $(VENV)/.dev  ## Build the wheel and the sdist of each distribution into dist/
	@for project in core $(PLUGINS); do $(BIN)/python -m build --no-isolation --outdir dist "$$project" || exit 1; done

.PHONY: clean
clean:  ## Remove environments, caches and what was built
	rm -rf $(VENV) .venvs $(REPORTS) dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
