"""Before anything imports torch: one OpenMP thread, because tiny models on a busy machine crawl with more."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What the imports left is never garbage, and the collector need not look through it after every few songs."""
    gc.collect()
    gc.freeze()
