# Two commands for a new machine: `make demo` and `make test`; each sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := hashrobust tests benchmarks

.PHONY: setup demo test coverage mutants check audit-dependencies format arrows bench clean

setup: .venv/ready

.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@# Independent implementations and photographs that tests compare with; what they themselves pin is not needed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps biotorch foolbox torchattacks
	touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Lines and branches of the package that tests run, those of processes that tests start among them.
coverage: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term

# Lines made wrong one at a time: would a test notice? An hour or two; goes on where it was broken off.
mutants: setup
	for area in rules attacks metrics kernel attackable training; do $(BIN)/python tests/mutants/run.py $$area || exit 1; done

check: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy --strict hashrobust
	$(BIN)/python -m pytest -q tests/test_imports.py

# Known vulnerabilities of dependencies: a warning, or a word on why it was skipped.
audit-dependencies: setup
	$(BIN)/python .ci/audit_dependencies.py

format: setup
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# The imports that docs/design.md draws.
arrows: setup
	$(BIN)/python tests/arrows.py

bench: setup
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
