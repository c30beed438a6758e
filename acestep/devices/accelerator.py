"""What CUDA, ROCm and XPU devices share: torch gives each backend a module with the same functions."""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor


class Accelerator:
    """The first card of a torch backend (`torch.cuda` or `torch.xpu`), computing in `dtype`."""

    shares_host_memory = False

    def __init__(self, backend: ModuleType, torch_device: torch.device, dtype: torch.dtype, *, grouped: bool) -> None:
        self.torch_device = torch_device
        self.dtype = dtype
        self.grouped_attention = grouped
        self._backend = backend

    def upload(self, host: Tensor, owner: str) -> Tensor:
        """Copy to the card; an out-of-memory error says which part did not fit."""
        try:
            return host.to(self.torch_device)
        except torch.OutOfMemoryError as error:
            error.add_note(f"while moving the {owner} to the card")
            raise

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy into host memory."""
        torch.from_numpy(host).copy_(source)

    def free_bytes(self) -> int:
        """What the driver calls free plus what this process caches unused."""
        free, _ = self._backend.mem_get_info(self.torch_device)
        cached = self._backend.memory_reserved(self.torch_device) - self.allocated_bytes()
        return int(free + cached)

    def allocated_bytes(self) -> int:
        """Bytes in live tensors."""
        return int(self._backend.memory_allocated(self.torch_device))

    def empty_cache(self) -> None:
        """Return unused segments to the driver."""
        self._backend.empty_cache()

    def synchronize(self) -> None:
        """Wait for the card."""
        self._backend.synchronize(self.torch_device)

    def begin_stage(self, name: str) -> None:  # noqa: ARG002 the protocol's argument
        """Reset the allocator's peaks."""
        self._backend.reset_peak_memory_stats(self.torch_device)

    def end_stage(self) -> tuple[int, int]:
        """The allocator's peaks."""
        return (
            int(self._backend.max_memory_allocated(self.torch_device)),
            int(self._backend.max_memory_reserved(self.torch_device)),
        )
