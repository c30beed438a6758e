"""The CPU as a device: host and device memory are one, so moves are free and nothing needs to leave."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class CpuDevice:
    """Computes in float32 where the host is; bf16 is slower than float32 on most CPUs and less exact."""

    torch_device = torch.device("cpu")
    dtype = torch.float32
    grouped_attention = True
    shares_host_memory = True

    def upload(self, host: Tensor, owner: str) -> Tensor:  # noqa: ARG002 the protocol's argument
        """The host tensor itself."""
        return host

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy `source` into `host`."""
        torch.from_numpy(host).copy_(source)

    def free_bytes(self) -> int:
        """Bytes of memory the system calls available; 0 where it does not say."""
        try:
            with Path("/proc/meminfo").open(encoding="ascii") as lines:
                return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        except (OSError, StopIteration):
            return 0

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def synchronize(self) -> None:
        """Work on the CPU is done when the call returns."""

    def begin_stage(self, name: str) -> None:
        """No count is kept on the CPU."""

    def end_stage(self) -> tuple[int, int]:
        """No count is kept on the CPU."""
        return 0, 0
