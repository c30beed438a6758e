"""How many threads PyTorch computes with on the CPU."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import nn

from acestep.hardware.cores import usable_cores

_LOG = logging.getLogger(__name__)

SMALL_BYTES: Final = 64 << 20
"""Weights below this many bytes are computed by one thread: each of their operations ends before a second one starts.

Measured on two cores with eight layers of one width: at 64 (0.1 MiB) two threads take 1.5 times as long as one, from
256 (2 MiB) to 512 (8 MiB) about as long, at 1,024 (32 MiB) two thirds. The tiny model's weights take 3 MiB, those of
the smallest published model more than 3 GiB.
"""

CHOSEN_BY_THE_USER: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables with which the user sets the threads; PyTorch reads them when it is imported."""


def threads_for(weight_bytes: int, cores: int) -> int:
    """Return the threads for a model of `weight_bytes` on `cores`."""
    return 1 if weight_bytes < SMALL_BYTES else cores


def set_threads(modules: Iterable[nn.Module], environ: Mapping[str, str] = os.environ) -> None:
    """Set PyTorch's threads for a model that is computed on the CPU, unless the environment sets them."""
    if any(environ.get(name) for name in CHOSEN_BY_THE_USER):
        return
    weights = (weight for module in modules for weight in module.parameters())
    threads = threads_for(sum(weight.nbytes for weight in weights), usable_cores())
    if threads != torch.get_num_threads():
        _LOG.info("computing with %d threads instead of %d", threads, torch.get_num_threads())
        torch.set_num_threads(threads)
