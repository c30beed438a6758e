"""The processor cores that this process may use."""

import math
import os
from pathlib import Path

import psutil

from acestep.hardware.cgroups import cpu_quota


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may compute on at once, at least 1.

    Two hardware threads of one core count once: matrix products leave the second one nothing to do. `root` is the top
    of the file system that shows control groups, on Linux.
    """
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = psutil.cpu_count(logical=False) or scheduled
    quota = cpu_quota(root)
    return max(1, min(scheduled, whole, scheduled if quota is None else math.ceil(quota)))
