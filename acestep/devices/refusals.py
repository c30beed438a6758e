"""The messages of the plain `RuntimeError`s with which drivers and libraries report too little memory."""

from typing import Final

REFUSALS: Final = (
    ("allocator", r"MPS backend out of memory"),
    ("driver", r"(?:CUDA|HIP)(?: driver)? [Ee]rror(?: \d+)?: (?:out of memory|CUDA_ERROR_OUT_OF_MEMORY)"),
    ("driver", r"(?:\w+ failed(?: with)?:? )?(?:CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation)\b"),
    ("cublas", r"(?:CUDA error: )?(?:CU|HIP)BLAS_STATUS_ALLOC_FAILED\b"),
    ("cudnn", r"(?:cuDNN error: )?CUDNN_STATUS_(?:ALLOC|INTERNAL_ERROR_DEVICE_ALLOCATION)_FAILED\b"),
    ("cudnn", r"Unable to find a valid cuDNN algorithm to run convolution"),
    ("triton", r"Triton Error \[(?:CUDA|HIP)\]: out of memory"),
    ("host", r"(?:\[enforce fail at .*\] .*)?DefaultCPUAllocator: (?:not enough|can't allocate) mem"),
)
"""The source of each message, and a pattern that matches from its start.

On a full card, a driver cannot load a kernel and a library cannot make its handle.
"""
