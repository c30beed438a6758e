"""The simulated card as the pipeline sees it: a device whose moves are only counted."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from acestep.devices.base import DeviceEvent
from acestep.devices.cpu import InOrder
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import ACTIVATIONS
from calibrate.probes.simulated.work_counter import NOTHING, WorkCounter, work_between
from calibrate.probes.work import Work


class Book(Protocol):
    """Where the simulated device records stages and cache flushes, and reads the free bytes."""

    def begin_stage(self, name: str) -> None:
        """A stage begins."""
        ...

    def end_stage(self) -> tuple[int, int]:
        """The stage ends; its peaks (allocated, reserved) in bytes."""
        ...

    def empty_cache(self) -> None:
        """Wholly free segments are returned to the card."""
        ...

    def free_bytes(self) -> int:
        """Bytes that can still be allocated under the cap."""
        ...


class SimulatedDevice(InOrder):
    """A card with `meta` tensors; `ledger` reports every allocation to `book`. `work` is that of each ended stage."""

    torch_device = torch.device("meta")
    shares_host_memory = False
    computes = False

    def __init__(self, ledger: Ledger, book: Book, *, dtype: torch.dtype, grouped_attention: bool) -> None:
        self.dtype = dtype
        self.grouped_attention = grouped_attention
        self.has_triton = ledger.workspaces.has_triton
        self.matrix_workspace = ledger.workspaces.matmul_bytes
        self._ledger = ledger
        self._book = book
        ledger.owner = ACTIVATIONS
        self.work: dict[str, Work] = {}
        self._stage, self._begun = "", NOTHING

    def upload(self, host: Tensor, owner: str) -> Tensor:
        """Return a meta tensor with the layout of `host`, allocated for `owner`."""
        self._counter.transfer(host.numel() * host.element_size())
        return self._ledger.new(host.shape, host.stride(), host.dtype, owner)

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy nothing; only the shapes are compared."""
        if host.shape != tuple(source.shape):
            raise ValueError(f"download of {tuple(source.shape)} into an array of {host.shape}")
        self._counter.transfer(host.nbytes)
        # As on a card: an array with gaps is copied row by row.
        for _ in range(1 if host.flags.c_contiguous else len(host)):
            self._counter.wait()

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        """Return a meta tensor allocated for `owner`."""
        return self._ledger.new((n_bytes,), (1,), torch.uint8, owner)

    def make_room(self, n_bytes: int) -> None:
        """Allocate and free at once, as on a card."""
        self.reserve(n_bytes, ACTIVATIONS)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:  # noqa: ARG002
        """Copy nothing; only the layouts are compared."""
        for target, source in pairs:
            if (target.shape, target.dtype) != (source.shape, source.dtype):
                raise ValueError(f"fetch of {source.dtype} {tuple(source.shape)} into {tuple(target.shape)}")
            self._counter.transfer(source.numel() * source.element_size())

    def free_bytes(self) -> int:
        """Return the free bytes of the book."""
        self._ledger.recount()
        return self._book.free_bytes()

    def empty_cache(self) -> None:
        """Report it to the book, where it changes later allocations."""
        self._book.empty_cache()

    def synchronize(self) -> None:
        """Count it: on a card the host waits here."""
        self._counter.wait()

    def begin_stage(self, name: str) -> None:
        """Report it to the book."""
        self._ledger.recount()
        self._stage, self._begun = name, self._counter.counts
        self._book.begin_stage(name)

    def end_stage(self) -> tuple[int, int]:
        """Return the book's peaks."""
        self._ledger.recount()
        self.work[self._stage] = work_between(self._begun, self._counter.counts)
        return self._book.end_stage()

    @property
    def _counter(self) -> WorkCounter:
        return self._ledger.workspaces.work
