# Every target sets up .venv by itself; nothing but Python 3.11-3.13 and make has to be there.
PYTHON ?= python3
VENV ?= .venv
TRITON ?= .venv-triton
LM_EVAL ?= .venv-lm-eval
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# One thread: numbers repeat, and two test runs on one machine do not slow each other down.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all test-triton test-lm-eval lint format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/loramerge demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not slow'

test-all: $(STAMP) test-triton test-lm-eval
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

# lm-evaluation-harness beside what we need of it: with what it brings, 420 MB.
test-lm-eval: $(LM_EVAL)/.ready
	$(LM_EVAL)/bin/python -m pytest -q -p no:cacheprovider tests/evaluation/tasks/test_lm_eval.py

$(LM_EVAL)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LM_EVAL)
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(LM_EVAL)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lm-eval]' \
		pytest pytest-timeout lm-eval==0.4.13 datasets==5.2.0
	touch $(LM_EVAL)/.ready

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(TRITON) $(LM_EVAL) dist build .pytest_cache .mypy_cache .ruff_cache
