"""One error for memory that ran out, whatever the backend raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PLAIN_REFUSALS = ("MPS backend out of memory", "DefaultCPUAllocator", "unable to find an engine to execute this")
"""How Metal's and the processor's allocators and cuDNN refuse, as plain `RuntimeError`s.

cuDNN tries one engine after another, and where the workspace of none fits it only says that it found none
(aten/src/ATen/native/cudnn/Conv_v8.cpp).
"""


@contextmanager
def one_out_of_memory_error() -> Iterator[None]:
    """Inside, every backend runs out of memory with `torch.OutOfMemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not any(sign in str(error) for sign in PLAIN_REFUSALS):
            raise
        raise torch.OutOfMemoryError(str(error)) from None
