"""A CUDA or ROCm card as a device, and the one place where a cap is put on it."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from acestep.units import gib

FLASH_CAPABILITY = (8, 0)
"""From this compute capability on PyTorch's flash kernel runs, which takes grouped queries."""


class CudaDevice:
    """The first visible card; `cap_bytes` bounds what this process may reserve on it."""

    shares_host_memory = False

    def __init__(self, cap_bytes: int | None = None) -> None:
        self.torch_device = torch.device("cuda", 0)
        self._cap = cap_bytes
        if cap_bytes is not None:
            total = torch.cuda.get_device_properties(self.torch_device).total_memory
            if cap_bytes > total:
                raise ValueError(f"the cap must be below the card's {gib(total)}, got {gib(cap_bytes)}")
            torch.cuda.set_per_process_memory_fraction(cap_bytes / total, self.torch_device)

    @cached_property
    def _capability(self) -> tuple[int, int]:
        return torch.cuda.get_device_capability(self.torch_device)

    @property
    def dtype(self) -> torch.dtype:
        """bf16 from Ampere on, fp16 before."""
        return torch.bfloat16 if self._capability >= FLASH_CAPABILITY else torch.float16

    @property
    def grouped_attention(self) -> bool:
        """Whether the flash kernel is there."""
        return self._capability >= FLASH_CAPABILITY

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
        """What the driver calls free plus what this process caches unused, within the cap."""
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        allocated = torch.cuda.memory_allocated(self.torch_device)
        usable = free + torch.cuda.memory_reserved(self.torch_device) - allocated
        return usable if self._cap is None else min(usable, self._cap - allocated)

    def empty_cache(self) -> None:
        """Return unused segments to the driver."""
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the card."""
        torch.cuda.synchronize(self.torch_device)

    def begin_stage(self, name: str) -> None:  # noqa: ARG002 the protocol's argument
        """Reset the allocator's peaks."""
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    def end_stage(self) -> tuple[int, int]:
        """The allocator's peaks."""
        return (
            torch.cuda.max_memory_allocated(self.torch_device),
            torch.cuda.max_memory_reserved(self.torch_device),
        )
