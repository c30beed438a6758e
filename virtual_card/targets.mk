# The virtual card: PyTorch's CUDA build on a card without cores. virtual_card/README.md tells what it is.
VIRTUAL_VENV := .venv-virtual
VIRTUAL_PYTHON := $(VIRTUAL_VENV)/bin/python
VIRTUAL_LOCK := virtual_card/requirements.txt
VIRTUAL_SOURCES := $(wildcard virtual_card/library/*.cpp virtual_card/library/*.h)
SANITIZERS := address undefined thread

.PHONY: virtual-env virtual-card test-virtual test-virtual-probes virtual-sanitizers virtual-format

# Made again only when its lock changes, or its Python is gone; 1.2 GB on disk, and 0.6 GB to download. It counts as made
# once PyTorch has been found in it.
FINDS_TORCH := $(VIRTUAL_PYTHON) -c "from importlib.util import find_spec; assert find_spec('torch')"
virtual-env:
	@{ cmp -s $(VIRTUAL_LOCK) $(VIRTUAL_VENV)/installed.txt && $(FINDS_TORCH) 2>/dev/null; } || { \
		python3 -m venv --clear $(VIRTUAL_VENV) && \
		echo "installing $(VIRTUAL_LOCK) into $(VIRTUAL_VENV); its log is $(VIRTUAL_VENV)/install.log" && \
		{ $(VIRTUAL_PYTHON) -m pip install --quiet --upgrade "pip>=25.1" && \
		$(VIRTUAL_PYTHON) -m pip install --no-deps --no-cache-dir --requirement $(VIRTUAL_LOCK) && \
		$(FINDS_TORCH); \
		} > $(VIRTUAL_VENV)/install.log 2>&1 && \
		cp $(VIRTUAL_LOCK) $(VIRTUAL_VENV)/installed.txt; } || \
		{ echo "PyTorch's CUDA build could not be installed:"; tail -n 5 $(VIRTUAL_VENV)/install.log; exit 1; } >&2

virtual-card: virtual-env
	@$(VIRTUAL_PYTHON) -m virtual_card.build --if-changed

# Where PyTorch's CUDA build cannot be installed, that is one test skipped, and the log says why.
test-virtual:
	@if $(MAKE) --no-print-directory virtual-env; then \
		$(MAKE) --no-print-directory virtual-card && \
		$(VIRTUAL_PYTHON) -m pytest $(SPREAD) tests/virtual $(VIRTUAL_TESTS); \
	else \
		echo "0 passed, 0 failed, 1 skipped"; \
	fi

# The tests of a card, on a virtual one; those of probes load the full-size model and take many minutes.
test-virtual-probes: virtual-card
	$(VIRTUAL_PYTHON) -m virtual_card --gib 16 -- $(VIRTUAL_PYTHON) -m pytest tests/gpu $(VIRTUAL_TESTS)

virtual-sanitizers: virtual-env
	@for sanitizer in $(SANITIZERS); do \
		$(VIRTUAL_PYTHON) -m virtual_card.build --if-changed --sanitizer $$sanitizer && \
		VIRTUAL_CARD_SANITIZER=$$sanitizer $(VIRTUAL_PYTHON) -m pytest tests/virtual/library || exit 1; \
	done

virtual-format: virtual-env
	$(VIRTUAL_VENV)/bin/clang-format -i $(VIRTUAL_SOURCES)
