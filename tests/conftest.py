"""Before anything imports torch: one OpenMP thread, because tiny models on a busy machine crawl with more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
