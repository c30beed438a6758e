"""The one object through which the pipeline touches a device: moves, free memory, caches and peaks."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

DeviceEvent = Any
"""A point in the order of a device's work: an event of its backend, or None where everything is done in order."""


class Device(Protocol):
    """A place to compute. Real ones wrap a torch backend; the simulated one keeps books instead of bytes."""

    @property
    def torch_device(self) -> torch.device:
        """Where device tensors live."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype weights and activations have here."""
        ...

    @property
    def grouped_attention(self) -> bool:
        """Whether the fused attention kernel takes grouped queries without expanding keys and values."""
        ...

    @property
    def matrix_workspace(self) -> int:
        """Bytes that the matrix library keeps from its first product on."""
        ...

    @property
    def shares_host_memory(self) -> bool:
        """Whether a move to the device is no move at all, so that offloading frees nothing."""
        ...

    def upload(self, host: Tensor, owner: str) -> Tensor:
        """A copy of a host tensor on the device; `owner` is the part it belongs to, for messages and books."""
        ...

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy a device tensor into a host array of the same shape."""
        ...

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        """Unwritten device memory [n_bytes] uint8 for the part `owner`, to be filled by `fetch`."""
        ...

    def make_room(self, n_bytes: int) -> None:
        """Have the allocator hold `n_bytes` in one piece, from which the next tensors are served.

        Raises `torch.OutOfMemoryError` like any request. Its few MiB of gaps may be what does not fit; the retry then
        asks for less, where tensors one by one could have taken a few MiB more without being foreseen.
        """
        ...

    def pinned(self, n_bytes: int) -> Tensor | None:
        """Page-locked host memory [n_bytes] uint8, from which copies run beside computation.

        None where there is none: the device has no use for it, memory is short, or the system refuses.
        """
        ...

    def mark(self) -> DeviceEvent:
        """The point that the device's computation has been asked to reach so far."""
        ...

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        """Start copying (device tensor, host tensor) pairs beside computation, not before it has passed `after`.

        The mark says when they have arrived.
        """
        ...

    def wait(self, mark: DeviceEvent) -> None:
        """Computation asked for from now on starts after `mark`."""
        ...

    def free_bytes(self) -> int:
        """Bytes a new allocation may count on now: free on the card, plus cached and unused here, within the cap."""
        ...

    def empty_cache(self) -> None:
        """Give cached blocks that hold nothing back to the card."""
        ...

    def synchronize(self) -> None:
        """Wait until everything asked for is done, so that clocks mean something."""
        ...

    def begin_stage(self, name: str) -> None:
        """Start counting peaks for a stage."""
        ...

    def end_stage(self) -> tuple[int, int]:
        """Stop counting; the most bytes (allocated, reserved) since the stage began, 0 where no count is kept."""
        ...
