# Tiny models on two cores: a second OpenMP thread makes them slower, at times hundreds of times.
export OMP_NUM_THREADS := 1

VENV := .venv
PYTHON := $(VENV)/bin/python
BENCH_RUN := $(VENV)/bench.json
VLLM_VENV := .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_LOCK := tools/vllm-requirements.txt

.PHONY: install test vllm-env test-vllm test-browser screenshots soak lint types check tier-test bench clean

install: $(VENV)/.installed

# The editable install reads pyproject.toml; installing again is only needed when it changes.
$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade "pip>=25.1"
	$(PYTHON) -m pip install --quiet --editable . --group dev
	touch $@

test: install
	$(PYTHON) -m pytest -n 2 --dist loadfile

# Servers and a browser share the machine's cores: one test at a time.
test-browser: install
	$(PYTHON) -m pytest tests/browser -m browser

screenshots: install
	$(PYTHON) -m tests.browser.screenshots docs/images

soak: install
	$(PYTHON) -m pytest tests/soak -m soak -s --timeout 1800

# vLLM pins other releases than ours, so it has an environment of its own, with MLX beside it, made again only when its
# lock changes. It counts as made once vLLM has been imported in it.
vllm-env:
	@cmp -s $(VLLM_LOCK) $(VLLM_VENV)/installed.txt || { \
		python3 -m venv --clear $(VLLM_VENV) && \
		echo "installing $(VLLM_LOCK) into $(VLLM_VENV); its log is $(VLLM_VENV)/install.log" && \
		{ $(VLLM_PYTHON) -m pip install --no-deps --requirement $(VLLM_LOCK) && \
		$(VLLM_PYTHON) -c "import vllm"; } > $(VLLM_VENV)/install.log 2>&1 && \
		cp $(VLLM_LOCK) $(VLLM_VENV)/installed.txt; }

# Where vLLM cannot be installed, that is one test skipped, and the end of the log says why.
test-vllm:
	@if $(MAKE) --no-print-directory vllm-env; then \
		$(VLLM_PYTHON) -m pytest tests/vllm tests/mlx; \
	else \
		echo "vLLM could not be installed:"; tail -n 5 $(VLLM_VENV)/install.log; \
		echo "0 passed, 0 failed, 1 skipped"; \
	fi

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
	rm -rf $(VENV) $(VLLM_VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

include virtual_card/targets.mk
