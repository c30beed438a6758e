"""One exception class for running out of memory, for every backend."""

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
"""Texts of out-of-memory errors that Metal's and the CPU's allocators, drivers and libraries raise as plain
`RuntimeError`s.

On a full card, a driver cannot load a kernel and a library cannot create its handle. cuDNN tries one engine after
another. If the workspace of none fits, it only reports that it found no engine
(aten/src/ATen/native/cudnn/Conv_v8.cpp).
"""


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, for all known error texts."""
    refused = isinstance(error, RuntimeError) and any(sign in str(error) for sign in PLAIN_REFUSALS)
    return refused or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def one_out_of_memory_error() -> Iterator[None]:
    """Raise every backend's out-of-memory error inside the block as `torch.OutOfMemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not ran_out(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None
