# Tiny models on two cores: a second OpenMP thread makes them slower, at times hundreds of times.
export OMP_NUM_THREADS := 1

VENV := .venv
PYTHON := $(VENV)/bin/python
BENCH_RUN := $(VENV)/bench.json

.PHONY: install test soak lint types check tier-test bench clean

install: $(VENV)/.installed

# The editable install reads pyproject.toml; installing again is only needed when it changes.
$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade "pip>=25.1"
	$(PYTHON) -m pip install --quiet --editable . --group dev
	touch $@

test: install
	$(PYTHON) -m pytest -n 2 --dist loadfile

soak: install
	$(PYTHON) -m pytest tests/soak -m soak -s --timeout 1800

lint: install
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: install
	$(PYTHON) -m mypy

check: test lint types

tier-test: install
	$(PYTHON) profile_inference.py --mode tier-test --tier-boundary

bench: install
	$(PYTHON) -m pytest tests/benchmarks --benchmark-only --benchmark-timer=time.process_time --benchmark-json=$(BENCH_RUN)
	$(PYTHON) -m tests.benchmarks.results $(BENCH_RUN) benchmarks/RESULTS.md

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
