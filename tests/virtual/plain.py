"""The library's functions for processes without PyTorch: thin and unsafe, as C callers use them."""

import ctypes
import json
import os
import sys
import threading
import time
from ctypes import byref, c_char, c_float, c_int, c_size_t, c_uint, c_void_p

__all__ = [
    "GRAIN",
    "MIB",
    "allocate",
    "byref",
    "c_char",
    "c_float",
    "c_int",
    "c_size_t",
    "c_uint",
    "c_void_p",
    "ctypes",
    "cuda",
    "free",
    "info",
    "json",
    "launch",
    "os",
    "stream",
    "sys",
    "threading",
    "time",
]  # fmt: skip

MIB = 1 << 20
GRAIN = 2 * MIB
cuda = ctypes.CDLL(None)


class Size(ctypes.Structure):
    _fields_ = (("x", c_uint), ("y", c_uint), ("z", c_uint))


cuda.cudaLaunchKernel.argtypes = [c_void_p, Size, Size, c_void_p, c_size_t, c_void_p]


def allocate(size: int) -> tuple[int, int]:
    """The error and the address."""
    at = c_void_p()
    error = cuda.cudaMalloc(byref(at), c_size_t(size))
    return error, at.value or 0


def free(at: int) -> int:
    return int(cuda.cudaFree(c_void_p(at)))


def info() -> tuple[int, int]:
    """Free and total bytes."""
    left, total = c_size_t(), c_size_t()
    error = cuda.cudaMemGetInfo(byref(left), byref(total))
    assert error == 0, error
    return left.value, total.value


def launch(where: int | None = None, threads: int = 32, shared: int = 0) -> int:
    return int(cuda.cudaLaunchKernel(c_void_p(1), Size(1, 1, 1), Size(threads, 1, 1), None, shared, c_void_p(where)))


def stream(flags: int = 1) -> int:
    made = c_void_p()
    assert cuda.cudaStreamCreateWithFlags(byref(made), c_uint(flags)) == 0
    return made.value or 0
