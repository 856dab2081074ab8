# Every target sets up .venv by itself; nothing but Python 3.11-3.13 and make has to be there.
PYTHON ?= python3
VENV ?= .venv
TRITON ?= .venv-triton
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# One thread: numbers repeat, and two test runs on one machine do not slow each other down.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all test-triton lint format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/loramerge demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not slow'

test-all: $(STAMP) test-triton
	$(BIN)/python -m pytest -q

# The kernels with the Triton that GPU builds of torch bring, beside the newest one in $(VENV).
test-triton: $(TRITON)/.ready
	PYTHONPATH=. $(TRITON)/bin/python -m pytest -q -p no:cacheprovider tests/kernels

$(TRITON)/.ready: constraints.txt
	$(PYTHON) -m venv $(TRITON)
	grep -v '^triton==' constraints.txt > $(TRITON)/constraints.txt
	$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check -c $(TRITON)/constraints.txt \
		torch numpy pytest pytest-timeout hypothesis triton==3.6.0
	touch $(TRITON)/.ready

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(TRITON) dist build .pytest_cache .mypy_cache .ruff_cache
