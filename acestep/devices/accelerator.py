"""The parts that CUDA, ROCm and XPU devices share: torch gives each backend a module with the same functions."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acestep.devices.base import DeviceEvent, Recording
from acestep.devices.cap import fraction_for
from acestep.devices.graphs import RECORDING_BYTES, GraphRecorder
from acestep.hardware.card import Card, CardKind
from acestep.hardware.host import LOCKED
from acestep.limits.capabilities import (
    MATRIX_WORKSPACE,
    TRITON_CAPABILITY,
    computes_in_float32,
    groups_attention,
    matrix_workspace_of,
    torch_release,
)
from acestep.limits.machine import installed


class Accelerator:
    """A card of a torch backend (`torch.cuda` or `torch.xpu`), computing in `dtype`."""

    shares_host_memory = False
    computes = True
    has_triton = False

    def __init__(
        self, backend: ModuleType, torch_device: torch.device, dtype: torch.dtype, *, grouped: bool, workspace: int
    ) -> None:
        self.torch_device = torch_device
        self.dtype = dtype
        self.grouped_attention = grouped
        self.matrix_workspace = workspace
        self._backend = backend
        self._copying: Any = None

    def upload(self, host: Tensor, owner: str) -> Tensor:
        """Copy to the card; an out-of-memory error says which part did not fit."""
        with _naming(owner):
            # From page-locked memory the copy is asynchronous, and later work on the card waits for it.
            return host.to(self.torch_device, non_blocking=host.is_pinned())

    def download(self, host: np.ndarray, source: Tensor) -> None:
        target = torch.from_numpy(host)
        # PyTorch copies into an array with gaps through a second one of the same size, and through none row by row.
        for row, part in ((target, source),) if target.is_contiguous() else zip(target, source, strict=True):
            row.copy_(part)

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        """Take memory from the pool of the computing stream, so that computation can reuse it afterwards."""
        with _naming(owner):
            return torch.empty(n_bytes, dtype=torch.uint8, device=self.torch_device)

    def make_room(self, n_bytes: int) -> None:
        """Take one segment and free it at once; the allocator keeps it until the cache is emptied."""
        self.reserve(n_bytes, "activations")

    def pinned(self, n_bytes: int) -> Tensor | None:
        """Page-locked memory: what PyTorch keeps of it, or new as long as `LOCK_RESERVE_BYTES` stay free."""
        block = LOCKED.block_for(n_bytes)
        if block is None:
            return None
        try:
            locked = torch.empty(block, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # the system limits locked pages
            LOCKED.at_limit = True
            return None
        LOCKED.begin(block, locked.untyped_storage())
        return locked[:n_bytes]

    def mark(self) -> DeviceEvent:
        return self._backend.current_stream(self.torch_device).record_event()

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        """Copy on a separate stream; a copy from memory that is not page-locked blocks the caller."""
        if self._copying is None:
            self._copying = self._backend.Stream(self.torch_device)
        self._copying.wait_event(after)
        with self._backend.stream(self._copying):
            for target, source in pairs:
                target.copy_(source, non_blocking=source.is_pinned())
        return self._copying.record_event()

    def wait(self, mark: DeviceEvent) -> None:
        self._backend.current_stream(self.torch_device).wait_event(mark)

    def can_record(self) -> bool:
        """Only on NVIDIA cards."""
        return False

    def record(self, work: Callable[[], None]) -> Recording | None:  # noqa: ARG002 the protocol's argument
        """Return None: only CUDA's graphs are used."""
        return None

    def free_bytes(self) -> int:
        """The driver's free bytes plus the bytes that this process caches without using them.

        Never more than the card has besides what others use: on Windows this process can have reserved memory that the
        driver keeps in main memory, and that part of its cache is not on the card.
        """
        free, total = self._backend.mem_get_info(self.torch_device)
        reserved = self._backend.memory_reserved(self.torch_device)
        others = max(0, total - free - reserved)
        return int(max(0, total - others - self.allocated_bytes()))

    def allocated_bytes(self) -> int:
        """Bytes in live tensors."""
        return int(self._backend.memory_allocated(self.torch_device))

    def empty_cache(self) -> None:
        self._backend.empty_cache()

    def synchronize(self) -> None:
        self._backend.synchronize(self.torch_device)

    def begin_stage(self, name: str) -> None:  # noqa: ARG002 the protocol's argument
        self._backend.reset_peak_memory_stats(self.torch_device)

    def end_stage(self) -> tuple[int, int]:
        return (
            int(self._backend.max_memory_allocated(self.torch_device)),
            int(self._backend.max_memory_reserved(self.torch_device)),
        )


@contextmanager
def _naming(owner: str) -> Iterator[None]:
    """Add the part's name to an out-of-memory error raised inside the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        error.add_note(f"while taking memory for the {owner}")
        raise


class XpuDevice(Accelerator):
    """The Intel card with this torch index, in bf16.

    Its attention kernels need keys and values expanded to all heads.
    """

    def __init__(self, index: int = 0, *, current: bool = True) -> None:
        if index and current:
            torch.xpu.set_device(index)
        super().__init__(
            torch.xpu, torch.device("xpu", index), torch.bfloat16, grouped=False, workspace=MATRIX_WORKSPACE
        )


# By default CUDA orders cards by speed, while NVML and every plan order them by slot. CUDA reads the variable when it
# is first asked for cards.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

# Where a card cannot be used, our own sentence says why and what to do.
warnings.filterwarnings("ignore", message="CUDA initialization")


class CudaDevice(Accelerator):
    """The card with this torch index; `cap_bytes` limits what this process may reserve on it."""

    def __init__(self, cap_bytes: int | None = None, index: int = 0, *, current: bool = True) -> None:
        device = torch.device("cuda", index)
        if index and current:
            # Code that names no card, such as page-locked memory and Triton, uses the current one.
            torch.cuda.set_device(device)
        kind = CardKind.CUDA if torch.version.hip is None else CardKind.ROCM
        card = Card(kind=kind, name="", capability=torch.cuda.get_device_capability(device))
        dtype = torch.float32 if computes_in_float32(card) else torch.bfloat16
        # On data-centre cards PyTorch prefers cuDNN attention, which plans anew for every length of keys and takes
        # workspaces.
        torch.backends.cuda.enable_cudnn_sdp(False)
        workspace = matrix_workspace_of(card, torch_release(torch.__version__))
        grouped = groups_attention(card) and torch.backends.cuda.is_flash_attention_available()
        super().__init__(torch.cuda, device, dtype, grouped=grouped, workspace=workspace)
        new_enough = kind is CardKind.CUDA and card.capability >= TRITON_CAPABILITY
        self.has_triton = new_enough and installed("triton")
        self._recorder = GraphRecorder(device) if kind is CardKind.CUDA else None
        self._cap = cap_bytes
        if cap_bytes is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(fraction_for(cap_bytes, total), device)

    def can_record(self) -> bool:
        """Whether as much is free as a CUDA graph can take."""
        works = self._recorder is not None and self._recorder.works
        return works and self.free_bytes() >= RECORDING_BYTES + self.matrix_workspace

    def record(self, work: Callable[[], None]) -> Recording | None:
        """Record a CUDA graph."""
        return None if self._recorder is None else self._recorder.record(work)

    def free_bytes(self) -> int:
        """The driver's free bytes plus the bytes that this process caches without using them, within the cap."""
        usable = super().free_bytes()
        return usable if self._cap is None else min(usable, self._cap - self.allocated_bytes())
