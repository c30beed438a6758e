"""The CPU as a device: host and device memory are one, so moves are free and nothing needs to leave."""

import numpy as np
import torch
from torch import Tensor

from acestep.devices.in_order import InOrder
from acestep.host import host_memory
from acestep.memory.workspace import MATRIX_WORKSPACE


class CpuDevice(InOrder):
    """Computes in float32 where the host is; bf16 is slower than float32 on most CPUs and less exact."""

    torch_device = torch.device("cpu")
    dtype = torch.float32
    grouped_attention = True
    matrix_workspace = MATRIX_WORKSPACE
    shares_host_memory = True

    def upload(self, host: Tensor, owner: str) -> Tensor:  # noqa: ARG002 the protocol's argument
        """The host tensor itself."""
        return host

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy `source` into `host`."""
        torch.from_numpy(host).copy_(source)

    def reserve(self, n_bytes: int, owner: str) -> Tensor:  # noqa: ARG002
        """Ordinary memory."""
        return torch.empty(n_bytes, dtype=torch.uint8)

    def free_bytes(self) -> int:
        """Bytes of main memory that this process may still take."""
        return host_memory().available_bytes

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def synchronize(self) -> None:
        """Work on the CPU is done when the call returns."""

    def begin_stage(self, name: str) -> None:
        """No count is kept on the CPU."""

    def end_stage(self) -> tuple[int, int]:
        """No count is kept on the CPU."""
        return 0, 0
