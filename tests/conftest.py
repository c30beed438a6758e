"""Before anything imports torch: one OpenMP thread, because tiny models on a busy machine crawl with more.

And no test of many examples fails because a busy machine took long for one of them.
"""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collection imports modules, which never become garbage: the collector scans them neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        # The default is a collection every 700 objects; what looks at memory collects by itself.
        gc.set_threshold(50_000, 20, 100)
