"""Jobs written in as few passes as the device has room for."""

import gc
from collections.abc import Iterator, Sequence

import torch

from acestep.devices.base import Device
from acestep.devices.out_of_memory import one_out_of_memory_error
from acestep.planner.backends.base import Backend, Written
from acestep.planner.job import Job


def write_in_passes(
    jobs: Sequence[Job], backend: Backend, device: Device, written: Written, at_once: int = 0
) -> tuple[list[tuple[int, ...]], int]:
    """What was written for each job, and how many jobs at once it took.

    All at once is tried first, then two passes of even size, three, and so on; `at_once` above 0 is the only size
    tried. Raises `torch.OutOfMemoryError` when not even one job fits.
    """
    tokens: list[tuple[int, ...]] = []
    if not jobs:
        return tokens, 0
    sizes = [at_once] if at_once else list(even_passes(len(jobs)))
    for size in sizes:
        # Keys and values come first and are most of it, so a pass that cannot fit costs next to nothing.
        if size > 1 and not at_once and backend.cache_bytes(jobs[:size]) > device.free_bytes():
            continue
        try:
            with one_out_of_memory_error():
                while len(tokens) < len(jobs):
                    tokens += backend.write(jobs[len(tokens) : len(tokens) + size], written)
            return tokens, size
        except torch.OutOfMemoryError:
            if size == sizes[-1]:
                raise
        # Outside the except block, where the traceback no longer keeps what was half made.
        gc.collect()
        device.empty_cache()
    raise AssertionError("the last size returns or raises")


def even_passes(jobs: int) -> Iterator[int]:
    """Jobs at once for one pass, two passes, and so on down to one job, each size once."""
    last = 0
    for passes in range(1, jobs + 1):
        size = -(-jobs // passes)
        if size != last:
            yield size
        last = size
