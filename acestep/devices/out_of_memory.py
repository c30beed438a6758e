"""One error for memory that ran out, whatever the backend raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PLAIN_REFUSALS = ("MPS backend out of memory", "DefaultCPUAllocator")
"""How Metal's and the processor's allocators refuse, as plain `RuntimeError`s; CUDA, ROCm and XPU need no help."""


@contextmanager
def one_out_of_memory_error() -> Iterator[None]:
    """Inside, every backend runs out of memory with `torch.OutOfMemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not any(sign in str(error) for sign in PLAIN_REFUSALS):
            raise
        raise torch.OutOfMemoryError(str(error)) from None
