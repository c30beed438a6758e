# Tiny models on two cores: a second OpenMP thread makes them slower, at times hundreds of times.
export OMP_NUM_THREADS := 1

# Tests start hundreds of processes; without bytecode on disk each of them compiles our modules, and pytest every test.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
PYTHON := $(VENV)/bin/python
BENCH_RUN := $(VENV)/bench.json
BENCH_RUN_VLLM := $(VENV)/bench-vllm.json
# Seconds that the process computes: the machine may do other work meanwhile.
BENCH := --benchmark-only --benchmark-timer=time.process_time
VLLM_VENV := .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_LOCK := tools/vllm-requirements.txt

# Exact versions of everything that `install` installs, the same on every machine; `make lock` writes it.
LOCK := constraints.txt
# This release's CPU build has the same version, and a range would take the newest CUDA build of several GB.
LOCKED_TORCH := torch==2.13.0
LOCK_VENV := .venv-lock

LATEST_VENV := .venv-latest

# Two processes share the files in the order of their names: tests/integration, which takes longest, comes before
# tests/unit, so that both processes end at the same time. xdist's own order puts files with few tests last, however long.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install lock test test-latest test-extras release-check vllm-env test-vllm test-ray test-browser screenshots soak lint types check tier-test bench clean

install: $(VENV)/.installed

# The editable install reads pyproject.toml; installing again is only needed when it or the versions change.
$(VENV)/.installed: pyproject.toml $(LOCK)
	@echo "installing the versions of $(LOCK) into $(VENV); pip's output is in $(VENV)/install.log"
	@python3 -m venv $(VENV)
	@rm -f $(VENV)/install.log
	@python3 tools/install.py $(VENV) --upgrade pip --constraint $(LOCK)
	@python3 tools/install.py $(VENV) --editable ".[calibrate]" --group dev --constraint $(LOCK) --build-constraint $(LOCK)
	@touch $@

# The newest versions that pyproject.toml allows, for every platform; without hosts, hashes and paths.
lock:
	@test -x $(LOCK_VENV)/bin/uv || { python3 -m venv $(LOCK_VENV) && python3 tools/install.py $(LOCK_VENV) uv; }
	echo "$(LOCKED_TORCH)" | $(LOCK_VENV)/bin/uv pip compile pyproject.toml - --extra calibrate --group dev --universal \
		--upgrade --no-python-downloads --no-annotate --custom-compile-command "make lock" --quiet --output-file $(LOCK)

test: install
	$(PYTHON) -m pytest $(SPREAD)

# Servers and a browser share the machine's cores: one test at a time.
test-browser: install
	$(PYTHON) -m pytest tests/browser -m browser

# The two pictures of the README, and every state of the page in every language, to look at.
screenshots: install
	$(PYTHON) -m tests.browser.screenshots docs/images
	$(PYTHON) -m tests.browser.screenshots $(VENV)/screenshots en ko ja zh

# libFuzzer for Python has no builds for every system; without it its tests are skipped and say so.
soak: install
	@python3 tools/install.py $(VENV) --group fuzz || echo "atheris could not be installed"
	$(PYTHON) -m pytest tests -m soak -s --timeout 1800

# vLLM pins other releases than ours, so it has an environment of its own, with MLX beside it, made again only when its
# lock changes. It counts as made once vLLM has been imported in it.
vllm-env:
	@cmp -s $(VLLM_LOCK) $(VLLM_VENV)/installed.txt || { \
		python3 -m venv --clear $(VLLM_VENV) && \
		echo "installing $(VLLM_LOCK) into $(VLLM_VENV); its log is $(VLLM_VENV)/install.log" && \
		{ $(VLLM_PYTHON) -m pip install --no-deps --requirement $(VLLM_LOCK) && \
		$(VLLM_PYTHON) -c "import vllm"; } > $(VLLM_VENV)/install.log 2>&1 && \
		cp $(VLLM_LOCK) $(VLLM_VENV)/installed.txt; }

# If vLLM cannot be installed, this counts as one skipped test, and the end of the log says why.
test-vllm:
	@if $(MAKE) --no-print-directory vllm-env; then \
		$(VLLM_PYTHON) -m pytest tests/vllm tests/mlx; \
	else \
		echo "vLLM could not be installed:"; tail -n 5 $(VLLM_VENV)/install.log; \
		echo "0 passed, 0 failed, 1 skipped"; \
	fi

# A cluster on this machine's loopback. If Ray cannot be installed, this counts as one skipped test, and the end of the
# log says why.
test-ray: install
	@if python3 tools/install.py $(VENV) --editable ".[ray]" --constraint $(LOCK); then \
		timeout 300 $(PYTHON) -m pytest tests/ray -m "ray and not soak" --timeout 150; \
	else \
		echo "Ray could not be installed"; \
		echo "0 passed, 0 failed, 1 skipped"; \
	fi

# The suite with the libraries that a new user gets today: no lock, a new environment every time.
test-latest:
	@echo "installing the newest libraries that pyproject.toml allows; pip's output is in $(LATEST_VENV)/install.log"
	@python3 -m venv --clear $(LATEST_VENV)
	@python3 tools/install.py $(LATEST_VENV) --upgrade pip
	@python3 tools/install.py $(LATEST_VENV) --editable ".[calibrate]" --group dev
	$(LATEST_VENV)/bin/python -m pytest $(SPREAD) --junit-xml $(LATEST_VENV)/suite.xml

# Whether each combination of extras can be installed; asks the package index.
test-extras: install
	$(PYTHON) -m pytest tests/soak/test_extras_resolve.py -m soak

# The wheel in an empty environment; TAG=vX.Y.Z also compares the tag with the version and the changelog.
release-check: install
	$(PYTHON) -m tools.release_check --constraint $(LOCK) --tag "$(TAG)"

# Stored pages and plots that are not what the table says are found here, and not by a test: drawing takes 10 s.
lint: install
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m calibrate render --check

types: install
	$(PYTHON) -m mypy

check: test lint types

tier-test: install
	$(PYTHON) profile_inference.py --mode tier-test --tier-boundary

# The comparison with vLLM runs in vLLM's environment. If vLLM cannot be installed, the page of results says so.
bench: install
	@rm -f $(BENCH_RUN_VLLM)
	$(PYTHON) -m pytest tests/benchmarks $(BENCH) --benchmark-json=$(BENCH_RUN)
	@if $(MAKE) --no-print-directory vllm-env; then \
		$(VLLM_PYTHON) -m pytest tests/benchmarks/test_vllm_speed.py $(BENCH) --benchmark-json=$(BENCH_RUN_VLLM); \
	else \
		echo "vLLM could not be installed:"; tail -n 5 $(VLLM_VENV)/install.log; \
	fi
	$(PYTHON) -m tests.benchmarks.results benchmarks/RESULTS.md $(BENCH_RUN) $$(ls $(BENCH_RUN_VLLM) 2>/dev/null)

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(LOCK_VENV) $(LATEST_VENV) $(VIRTUAL_VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

include virtual_card/targets.mk
