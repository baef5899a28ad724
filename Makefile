# The commands of this project. Each target does all of its own set-up.
#
#   make quickstart   sample data, two models, both packaged and registered on the embedded registry
#   make ui           Dagster's UI on the same instance
#   make test         lint and the whole test suite, on all cores; ARGS="-k word" goes on to pytest
#   make test-fast    what is quick and needs no environments, no Azure and no browser: the loop while you write
#   make coverage     what these and other tests without them run of the package, and that it is no less than the floor
#   make azure-dev    a loopback Azure to try the project against, until Ctrl-C (needs Node.js)
#   make lock         newer versions of the dependencies into requirements-dev.lock
#   make lower-bounds tests with the lowest versions that pyproject.toml allows
#   make benchmark    our run against the stock SDK's, a record, scoring, a sensor's ticks, as ratios

PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# The versions that were tested last: a dependency's release of tomorrow breaks no clone.
LOCK := requirements-dev.lock
# Compiled bytecode halves the start of every command; a shell that switches it off slows all of them down.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

# One worker for each core, of the whole suite two more: half of its long tests' time is spent waiting, for a daemon's
# ticks or for a limit of the sandbox. Tests that share something dear stay on one worker, long ones go first (conftest.py).
WORKERS ?= logical
MORE_WORKERS := $(if $(filter logical,$(WORKERS)),$(shell echo $$(($$(nproc) + 2))),$(WORKERS))
PYTEST = "$(BIN)/python" -m pytest -n $(1) --maxprocesses=8 --dist loadgroup --no-loadscope-reorder
SLOW := e2e or environments or sandbox or daemon or azure or postgres or browser

.PHONY: quickstart ui test test-fast coverage lint lint-style lint-package lint-tests lint-components check azure-dev benchmark lock lower-bounds clean

$(BIN)/edgepack: pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON="; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) uv
	"$(BIN)/uv" pip install --quiet --python "$(BIN)/python" --compile-bytecode --constraint $(LOCK) -e .
	@touch "$(BIN)/edgepack"

$(VENV)/dev-installed: pyproject.toml $(LOCK) $(BIN)/edgepack
	"$(BIN)/uv" pip install --quiet --python "$(BIN)/python" --compile-bytecode --constraint $(LOCK) -e ".[dev]"
	@touch "$@"

quickstart: $(BIN)/edgepack
	@eval "$$("$(BIN)/edgepack" env)" && "$(BIN)/python" -m edgepack_assets.quickstart

ui: $(BIN)/edgepack
	@"$(BIN)/edgepack" ui

# Its parts at once: most of the time is mypy's, which uses one core.
lint: $(VENV)/dev-installed
	@$(MAKE) --no-print-directory -j 3 lint-style lint-package lint-tests lint-components

lint-style:
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/lint-imports" --no-logo

lint-package:
	"$(BIN)/mypy"

lint-tests:
	"$(BIN)/mypy" --config-file mypy-tests.ini

# One run for each folder whose modules are named as another's. They share a cache: what differs is read again.
lint-components:
	@set -e; mypy="$$(realpath "$(BIN)/mypy")"; top="$$(pwd)"; export MYPY_CACHE_DIR="$$top/.mypy_cache/components"; \
	for folder in $(dir $(wildcard examples/*/*/child_tasks.py)); do \
		package="$$(basename "$$folder")"; echo "mypy of $$folder"; \
		(cd "$$folder/.." && MYPYPATH="$$top" "$$mypy" --config-file "$$top/setup.cfg" \
			--cache-dir "$$top/.mypy_cache/of_$$package" -p "$$package"); \
	done; \
	for folder in $(dir $(wildcard edgepack_assets/model_types/*/child_tasks.py examples/*/*/child_tasks.py)); do \
		echo "mypy of $$folder: component/ and child_*.py"; \
		(cd "$$folder" && "$$mypy" --config-file "$$top/mypy-components.ini" $$(ls component/*.py 2>/dev/null) child_*.py); \
		for more in $$(cd "$$folder" && ls -d component_*/ 2>/dev/null); do \
			echo "mypy of $$folder$$more"; \
			(cd "$$folder" && MYPYPATH="$$more" "$$mypy" --config-file "$$top/mypy-components.ini" "$$more"*.py); \
		done; \
	done; \
	echo "mypy of renumbering/component/"; \
	cd edgepack_assets/model_types/renumbering && "$$mypy" --config-file "$$top/mypy-components.ini" component/*.py

check: $(VENV)/dev-installed
	@eval "$$("$(BIN)/edgepack" env)" && "$(BIN)/dagster" definitions validate

test: lint check
	$(call PYTEST,$(MORE_WORKERS)) $(ARGS)

test-fast: $(VENV)/dev-installed
	$(call PYTEST,$(WORKERS)) -m "not (long or $(SLOW))" $(ARGS)

coverage: $(VENV)/dev-installed
	$(call PYTEST,$(WORKERS)) --cov --cov-report=term:skip-covered -m "not ($(SLOW))" $(ARGS)

azure-dev: $(VENV)/dev-installed
	@"$(BIN)/python" -m edgepack_assets_tests.azure

benchmark: $(VENV)/dev-installed
	"$(BIN)/python" -m benchmarks

# Without an index's address: a clone uses the index that its own machine is set up for. Without what an earlier lock
# held, so that it depends on pyproject.toml and the index alone.
lock:
	"$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --extra dev --upgrade --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate --output-file $(LOCK) pyproject.toml

lower-bounds:
	SLOW="$(SLOW)" .ci/lower-bounds "$(PYTHON)"

clean:
	rm -rf "$(VENV)" .edgepack .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
