"""The ballast: a process that occupies the rest of a card, so that its free memory is that of a smaller one.

python -m calibrate.probes.ballast FD

Libraries that read the free memory then choose the algorithms for a full card, and the child's own children are limited
too.
"""

import socket
import sys
from typing import Any, Protocol

import msgspec

from acestep.units import MIB, ceil_div
from calibrate.probes.messages import Filled, LeaveFree, line_of
from calibrate.probes.worker import die_with

GRAIN_BYTES = 2 * MIB
"""The driver allocates memory in multiples of this size."""

PIECE_BYTES = 256 * MIB
"""Largest size of one allocation, so that separate free regions can be filled."""

SMALLEST_BYTES = 20 * MIB
"""From this size on PyTorch takes a separate segment from the driver, rounded up to a grain."""


class Store(Protocol):
    """A card on which memory can be allocated."""

    def free_bytes(self) -> int:
        """The free bytes according to the driver."""
        ...

    def take(self, n_bytes: int) -> Any:
        """Allocate memory. It is freed when no reference remains and `flush` is called."""
        ...

    def flush(self) -> None:
        """Return unreferenced memory to the driver."""
        ...


def ballast_sizes(n_bytes: int) -> list[int]:
    """Sizes that add up to `n_bytes` rounded up to a grain; none if that is too small for a separate allocation."""
    grains = ceil_div(n_bytes, GRAIN_BYTES) * GRAIN_BYTES
    if grains < SMALLEST_BYTES:
        return []
    whole = max(1, grains // PIECE_BYTES)
    return [PIECE_BYTES] * (whole - 1) + [grains - PIECE_BYTES * (whole - 1)]


class Ballast:
    """The memory occupied on a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: list[tuple[int, Any]] = []

    def leave_free(self, n_bytes: int) -> Filled:
        """Allocate or free until `n_bytes` are free, to within a grain as long as the ballast holds anything."""
        while self._held and self._store.free_bytes() < n_bytes + SMALLEST_BYTES:
            self._held.pop()
            self._store.flush()
        for size in ballast_sizes(self._store.free_bytes() - n_bytes):
            self._held.append((size, self._store.take(size)))
        return Filled(held_bytes=sum(size for size, _ in self._held), free_bytes=self._store.free_bytes())


def serve_ballast(channel: socket.socket, store: Store) -> None:
    """Change the occupied memory as requested, until the prober closes the channel."""
    die_with(channel)
    ballast = Ballast(store)
    with channel, channel.makefile("rb") as lines:
        for line in lines:
            channel.sendall(line_of(ballast.leave_free(msgspec.json.decode(line, type=LeaveFree).free_bytes)))


class CudaStore:
    """The first visible card, through torch."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        torch.cuda.synchronize()

    def free_bytes(self) -> int:
        return int(self._torch.cuda.mem_get_info()[0])

    def take(self, n_bytes: int) -> Any:
        return self._torch.empty(n_bytes, dtype=self._torch.uint8, device="cuda")

    def flush(self) -> None:
        self._torch.cuda.empty_cache()


def main() -> None:
    """Serve through the descriptor named on the command line."""
    serve_ballast(socket.socket(fileno=int(sys.argv[1])), CudaStore())


if __name__ == "__main__":
    main()
