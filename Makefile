# Every target sets itself up: a machine needs only Python 3.11+, git and make.
#   make demo       the closed loop on real wind-turbine records
#   make test       what needs neither network nor minutes
#   make test-all   also what is slow or needs the package registry, with the coverage gate
#   make check      format, lint, layers, types
#   make bench      the benchmarks; each writes a dated report and docs/LEADERBOARD.md
#   make bench-serve  only that of serving, beside seven other servers

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Workers for the tests. Two is what the smallest machine we promise to work on has.
JOBS   ?= 2
TESTS  := tests genba
DOCS   := README.md docs

.PHONY: demo test test-all check format bench bench-serve clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,7p'

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Genba needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/genba demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not network" -q $(TESTS) $(ARGS)

# Coverage doubles the time of every test, so only the long run counts it.
test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term --cov-fail-under=90 -q $(TESTS) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-serve: $(STAMP)
	$(BIN)/python -m benchmarks.serve.run $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .coverage .coverage.* htmlcov dist build .mypy_cache .ruff_cache .import_linter_cache
