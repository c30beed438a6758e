"""The one object through which the pipeline touches a device: moves, free memory, caches and peaks."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

DeviceEvent = Any
"""A point in the order of a device's work: an event of its backend, or None if the device works in order."""


class Recording(Protocol):
    """Work that a device has recorded with the addresses of its tensors, and repeats in one launch."""

    def repeat(self) -> None:
        """Do the recorded work again, on what is at those addresses now."""
        ...

    def release(self) -> None:
        """Free what the recording holds on the device; it cannot be repeated any more."""
        ...


class Device(Protocol):
    """A place to compute. Real devices wrap a torch backend; the simulated one counts bytes without storing them."""

    @property
    def torch_device(self) -> torch.device:
        """Where device tensors live."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations on this device."""
        ...

    @property
    def grouped_attention(self) -> bool:
        """Whether the fused attention kernel takes grouped queries without expanded keys and values."""
        ...

    @property
    def has_triton(self) -> bool:
        """Whether kernels that Triton compiles can be expected to run."""
        ...

    @property
    def matrix_workspace(self) -> int:
        """Bytes that the matrix library keeps after its first product."""
        ...

    @property
    def shares_host_memory(self) -> bool:
        """Whether device and host memory are the same, so that offloading frees nothing."""
        ...

    @property
    def computes(self) -> bool:
        """Whether it computes at all; a simulated device only counts."""
        ...

    def upload(self, host: Tensor, owner: str) -> Tensor:
        """Copy a host tensor to the device; `owner` is the part it belongs to, for messages and memory accounts."""
        ...

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy a device tensor into a host array of the same shape."""
        ...

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        """Unwritten device memory [n_bytes] uint8 for the part `owner`, to be filled by `fetch`."""
        ...

    def make_room(self, n_bytes: int) -> None:
        """Make the allocator hold `n_bytes` in one segment, from which the next tensors are served.

        Raises `torch.OutOfMemoryError` if it does not fit. The gaps in the segment, a few MiB, can be what does not
        fit. The retry then uses less memory, although separate tensors might have fitted.
        """
        ...

    def pinned(self, n_bytes: int) -> Tensor | None:
        """Page-locked host memory [n_bytes] uint8, from which copies run in parallel with computation.

        None if there is none: the device has no use for it, memory is short, or the system refuses.
        """
        ...

    def mark(self) -> DeviceEvent:
        """Return the current end of the device's work queue."""
        ...

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        """Start copying (device tensor, host tensor) pairs in parallel with computation, after the event `after`.

        Returns the event at which all copies are complete.
        """
        ...

    def wait(self, mark: DeviceEvent) -> None:
        """Make all later computation wait for `mark`."""
        ...

    def can_record(self) -> bool:
        """Whether the device records work, and has room for it now."""
        ...

    def record(self, work: Callable[[], None]) -> Recording | None:
        """Do some work and record it, so that it can be repeated; None if that fails.

        `work` is called once or more. It must not read a value from the device, and what it computes on the host is not
        computed again when the recording is repeated.
        """
        ...

    def free_bytes(self) -> int:
        """Bytes that a new allocation can use now: free on the card, plus unused cache, within the cap."""
        ...

    def empty_cache(self) -> None:
        """Return cached blocks without data to the card."""
        ...

    def synchronize(self) -> None:
        """Wait until all work is done, so that time measurements are right."""
        ...

    def begin_stage(self, name: str) -> None:
        """Start counting peaks for a stage."""
        ...

    def end_stage(self) -> tuple[int, int]:
        """Stop counting.

        Return the most bytes (allocated, reserved) since the stage began, 0 if the device does not count.
        """
        ...
