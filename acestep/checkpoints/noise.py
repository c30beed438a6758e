"""Random weights of full size that take almost no memory: all of them map the same few pages of noise.

A pool of noise is written once for each number format and spread, into a file without a name. A weight is a private
mapping of that file, repeated until it is long enough. So reading a weight needs no memory of its own, and writing into
it copies only the pages that are written.
"""

import ctypes
import mmap
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from acestep.units import MIB, ceil_div

POOL_PAGES: Final = 2_039
"""Length of a pool in pages: a prime, so that the rows of a matrix begin at different places of it."""

LEAST_MAPPED_BYTES: Final = 4 * MIB
"""Smaller weights are written as they are: a mapping has a cost, and a process may have 65,530 of them."""

_PAGE: Final = max(mmap.ALLOCATIONGRANULARITY, 4096)
_PRIVATE, _FIXED = 0x02, 0x10
"""MAP_PRIVATE and MAP_FIXED, the same number on Linux and macOS; Python has no name for the second."""


def maps_noise() -> bool:
    """Return whether this system can map one page at many addresses, as `mapped_noise` does; Windows cannot."""
    return sys.platform in ("linux", "darwin")


def mapped_noise(shape: torch.Size, dtype: torch.dtype, deviation: float, start: int) -> Tensor:
    """A tensor of noise with mean 0 on the CPU; the same for the same `start`, any whole number.

    Raises `OSError` where the system refuses the mapping.
    """
    n_bytes = shape.numel() * dtype.itemsize
    room = mmap.mmap(-1, ceil_div(n_bytes, _PAGE) * _PAGE, flags=_PRIVATE | mmap.MAP_ANONYMOUS)
    _map_pool(room, _pool_file(dtype, deviation), start % POOL_PAGES)
    return torch.frombuffer(room, dtype=dtype, count=shape.numel()).view(shape)


def _map_pool(room: mmap.mmap, file: int, page: int) -> None:
    """Map the pool over all of `room`: from its page `page` to its end, then from its start, as often as needed."""
    address, done = ctypes.addressof(ctypes.c_char.from_buffer(room)), 0
    while done < len(room):
        count = min(len(room) - done, (POOL_PAGES - page) * _PAGE)
        asked = address + done
        if _mmap()(asked, count, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE | _FIXED, file, page * _PAGE) != asked:
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)}, while {len(room)} bytes of noise were mapped")
        done, page = done + count, 0


@cache
def _mmap() -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    return function


@cache
def _pool_file(dtype: torch.dtype, deviation: float) -> int:
    """Return the descriptor of a file with one pool of noise. It has no name and is gone when the process ends."""
    count = POOL_PAGES * _PAGE // dtype.itemsize
    noise = torch.randn(count, generator=torch.Generator().manual_seed(0)).mul_(deviation).to(dtype)
    descriptor, name = tempfile.mkstemp(prefix="acestep-noise-")
    Path(name).unlink()
    with open(descriptor, "wb", closefd=False) as file:
        file.write(noise.view(torch.uint8).numpy().tobytes())
    return descriptor
