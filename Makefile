# Two commands matter: `make demo` and `make test`. Both set up everything they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
# Processes that share the tests, each of one thread; those tests that start processes share the cores with the others.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-long check docs bench format clean
help:
	@echo "make demo       the starts in the package, compared on simulated brains -> $(OUT)/report.html"
	@echo "make test       checks and the whole test suite"
	@echo "make test-long  the same with the full kill, fuzz and error-rate tests (hours)"
	@echo "make check      ruff and mypy"
	@echo "make docs       the documentation -> site/index.html"
	@echo "make bench      speed beside peers, as ratios"
	@echo "make format     ruff format of imports and style"

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headstart needs Python 3.11 or newer (PYTHON=... make)"; exit 1; }
	@echo "Setting up .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/headstart --help >/dev/null
	@touch $@

demo: .venv/ready
	@OUT=$(OUT) bash scripts/demo

test: .venv/ready check
	@bash scripts/test-packages
	$(PYTEST)

test-long: .venv/ready check
	@bash scripts/test-packages
	HEADSTART_LONG=1 $(PYTEST) --timeout 14400

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/ready
	$(BIN)/python -m benchmarks

format: .venv/ready
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs site
