"""One error for memory that ran out, whatever the backend raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PLAIN_REFUSALS = (
    *("MPS backend out of memory", "DefaultCPUAllocator"),
    *("CUDA error: out of memory", "CUDA driver error: out of memory", "HIP error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "HIPBLAS_STATUS_ALLOC_FAILED"),
    *("CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    *("unable to find an engine to execute this", "Unable to find a valid cuDNN algorithm to run convolution"),
    *("Triton Error [CUDA]: out of memory", "Triton Error [HIP]: out of memory"),
)
"""How the allocators of Metal and of the processor, drivers and libraries refuse, as plain `RuntimeError`s.

On a card that is filled to the brim, a driver cannot load a kernel and a library cannot make its handle. cuDNN tries
one engine after another, and where the workspace of none fits it only says that it found none
(aten/src/ATen/native/cudnn/Conv_v8.cpp).
"""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in whatever words."""
    refused = isinstance(error, RuntimeError) and any(sign in str(error) for sign in PLAIN_REFUSALS)
    return refused or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def one_out_of_memory_error() -> Iterator[None]:
    """Inside, every backend runs out of memory with `torch.OutOfMemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not ran_out(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None
