"""The processor cores that this process may use."""

import math
import os
from pathlib import Path

import psutil

from acestep.hardware.cgroups import cpu_quota


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may compute on at once, at least 1.

    Two hardware threads of one core count once: matrix products leave the second one nothing to do. A part of a core
    counts as a whole one: a group that may use 1.5 computes faster with two threads that wait now and then. `root` is
    the top of the file system that shows control groups and processors, on Linux.
    """
    if hasattr(os, "sched_getaffinity"):
        mask = os.sched_getaffinity(0)
        cores = len({_siblings(root, number) or str(number) for number in mask})
    else:
        cores = os.cpu_count() or 1
    whole, quota = psutil.cpu_count(logical=False) or cores, cpu_quota(root)
    return max(1, min(cores, whole, cores if quota is None else math.ceil(quota)))


def _siblings(root: Path, number: int) -> str:
    """The hardware threads of a thread's core, as Linux lists them; "" if it does not say."""
    try:
        place = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        return place.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
