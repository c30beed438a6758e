"""Before anything imports torch: one OpenMP thread, because tiny models on a busy machine crawl with more."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Imported objects never become garbage, so the collector need not scan them after every few songs."""
    gc.collect()
    gc.freeze()
