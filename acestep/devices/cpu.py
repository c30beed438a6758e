"""The CPU and Apple's GPU as devices: both share the machine's memory, so offloading frees nothing."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from acestep.devices.base import Device, DeviceEvent, Recording
from acestep.hardware.host import host_memory
from acestep.limits.capabilities import MATRIX_WORKSPACE


class InOrder:
    """The methods of the `Device` protocol about ordering and segments, for devices that work in order."""

    has_triton = False

    def pinned(self, n_bytes: int) -> Tensor | None:  # noqa: ARG002 the protocol's argument
        """Return None: copies do not run in parallel with computation here."""
        return None

    def make_room(self, n_bytes: int) -> None:
        """Do nothing: only PyTorch's CUDA-like allocators use segments of 20 MiB."""

    def mark(self) -> DeviceEvent:
        """Return None: work is done in order."""
        return None

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:  # noqa: ARG002
        for target, source in pairs:
            target.copy_(source)

    def wait(self, mark: DeviceEvent) -> None:
        """Do nothing: all earlier work is done already."""

    def can_record(self) -> bool:
        """Work is not recorded here."""
        return False

    def record(self, work: Callable[[], None]) -> Recording | None:  # noqa: ARG002
        """Return None: work is not recorded here."""
        return None


class Uncounted(InOrder):
    """A device in whose memory PyTorch counts no peaks."""

    torch_device: torch.device
    computes = True

    def upload(self, host: Tensor, owner: str) -> Tensor:  # noqa: ARG002 the protocol's argument
        """The tensor on the device; one that is there already is taken as it is."""
        return host.to(self.torch_device)

    def download(self, host: np.ndarray, source: Tensor) -> None:
        torch.from_numpy(host).copy_(source)

    def reserve(self, n_bytes: int, owner: str) -> Tensor:  # noqa: ARG002
        return torch.empty(n_bytes, dtype=torch.uint8, device=self.torch_device)

    def begin_stage(self, name: str) -> None:
        """No peak is counted."""

    def end_stage(self) -> tuple[int, int]:
        """No peak is counted."""
        return 0, 0


def cpu_dtype() -> torch.dtype:
    """Return the dtype in which the CPU computes fastest: bfloat16 if it has instructions for it, else float32.

    Without them, every product turns its numbers into float32 and back.
    """
    # The public `torch.cpu.get_capabilities` is not in every release that we support.
    able = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return torch.bfloat16 if able else torch.float32


def weights_dtype(device: Device, *, tiny: bool) -> torch.dtype:
    """Return the dtype of a model's weights on a device: float32 for a `tiny` model on the CPU, else the device's.

    A tiny model's products are too small to gain from bfloat16, and in float32 it is the same on every processor.
    """
    return torch.float32 if tiny and device.shares_host_memory else device.dtype


class CpuDevice(Uncounted):
    """Computes in host memory, in float32 or in `dtype`."""

    torch_device = torch.device("cpu")
    dtype = torch.float32
    grouped_attention = True
    matrix_workspace = MATRIX_WORKSPACE
    shares_host_memory = True

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def upload(self, host: Tensor, owner: str) -> Tensor:  # noqa: ARG002 the protocol's argument
        """The host tensor itself."""
        return host

    def free_bytes(self) -> int:
        return host_memory().available_bytes

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def synchronize(self) -> None:
        """Work on the CPU is done when the call returns."""


class MpsDevice(Uncounted):
    """Computes in float32: bf16-trained weights overflow in fp16 there."""

    torch_device = torch.device("mps")
    dtype = torch.float32
    grouped_attention = False
    matrix_workspace = MATRIX_WORKSPACE
    shares_host_memory = False

    def free_bytes(self) -> int:
        """The working set that Metal recommends, minus what its driver holds."""
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())

    def empty_cache(self) -> None:
        torch.mps.empty_cache()

    def synchronize(self) -> None:
        torch.mps.synchronize()
