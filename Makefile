# `make help` lists the targets. Needs Python 3.11 or newer (with venv and pip), make and git.
# uv is used when it is there, and is not needed.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(SUITABLE)' 2>/dev/null && echo "$$p" && break; done)
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
BIN := .venv/bin
READY := .venv/.installed
EXTRAS := postgresql mysql
SERVICES := rabbitmq postgresql mariadb
comma := ,
space := $(subst ,, )

ROUNDS ?= 20
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo sync serve test test-long torture fleet bench bench-quick lint types contracts check lock clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Mirror a small gallery that the package serves itself, offline
	@$(BIN)/http-downloader demo $(ARGS)

sync: $(READY) ## Mirror one gallery: make sync URL=https://… [TO=folder]
	@test -n "$$URL" || { echo "make sync needs an address: make sync URL=https://… [TO=folder]" >&2; exit 2; }
	@$(BIN)/http-downloader sync "$$URL" $${TO:+--to "$$TO"} $(ARGS)

serve: $(READY) ## Run the service; settings come from .env or the environment
	@$(BIN)/http-downloader serve $(ARGS)

# Most tests wait for services and sites most of the time: there are two at a time for each core.
test: $(READY) ## Run the tests; finds or starts the services they need: make test [ARGS="-k name"]
	@PYTHON=$(BIN)/python scripts/services.sh $(SERVICES)
	@$(BIN)/python -m pytest -n $$(( 2 * $$(getconf _NPROCESSORS_ONLN) )) --dist worksteal -m "not long" $(ARGS)

test-long: $(READY) ## Run the tests that take minutes
	@PYTHON=$(BIN)/python scripts/services.sh $(SERVICES)
	@$(BIN)/python -m pytest -n auto -m long --timeout=1800 $(ARGS)

torture: $(READY) ## Kill everything at random, and check that nothing is lost: make torture [ROUNDS=200] [SEED=1]
	@$(BIN)/python -m tests.torture --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

fleet: $(READY) ## Four workers, two killed and one paused, on two databases (10 minutes): make fleet [SEED=1]
	@PYTHON=$(BIN)/python scripts/services.sh postgresql mariadb
	@$(BIN)/python -m tests.fleet --seed $(SEED) $(ARGS)

bench: $(READY) ## Measure side by side with gallery-dl (40 minutes): make bench [ARGS="--only resync"]
	@PYTHON=$(BIN)/python scripts/services.sh $(SERVICES)
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-quick: $(READY) ## The same in small, about 2 minutes; fails only when a row is half as good as its goal
	@PYTHON=$(BIN)/python scripts/services.sh $(SERVICES)
	@$(BIN)/python -m benchmarks.run --quick $(ARGS)

lint: $(READY) ## Check style and formatting with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Check types with mypy --strict
	@$(BIN)/mypy

contracts: $(READY) ## Check that imports point down, with import-linter
	@$(BIN)/lint-imports --no-logo

check: lint types contracts test ## Everything that CI checks

# The lock names the public index only, whatever this machine's own settings are.
lock: $(READY) ## Write uv.lock anew after a change of the dependencies
	@command -v uv >/dev/null || $(BIN)/python -m pip install -q uv
	@unset UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_DEFAULT_INDEX UV_FIND_LINKS; \
	PATH="$$PATH:$(CURDIR)/$(BIN)" uv lock --no-config $(ARGS)

clean: ## Remove .venv, caches and build output
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is there and new enough is kept: only what it lacks is installed.
$(READY): pyproject.toml $(wildcard uv.lock)
	@set -e; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		python="$(PYTHON)"; \
		"$${python:-false}" -c '$(SUITABLE)' 2>/dev/null || { \
			echo "Python 3.11 or newer with venv and pip is needed, and $${python:-python3} is not that: install it, or name it with make PYTHON=/path/to/python3" >&2; \
			exit 1; }; \
		echo "creating .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv; \
	fi; \
	if command -v uv >/dev/null; then \
		echo "installing http-downloader, its locked dependencies and the development tools with uv"; \
		if env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT=.venv uv sync --quiet --frozen --inexact --python $(BIN)/python $(addprefix --extra ,$(EXTRAS)); \
		then touch $@; exit 0; fi; \
		echo "uv could not install from the lock; going on with pip"; \
	fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	echo "installing pip 25.1 or newer"; \
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'; \
	echo "installing http-downloader, its dependencies and the development tools with pip (a minute or two)"; \
	$(BIN)/python -m pip install -q -e '.[$(subst $(space),$(comma),$(EXTRAS))]' --group dev; \
	touch $@
