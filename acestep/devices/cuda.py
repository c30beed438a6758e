"""A CUDA or ROCm card, and the one place where a cap is put on it."""

import os

import torch

from acestep.devices.accelerator import Accelerator
from acestep.memory.workspace import ROCM_MATRIX_WORKSPACE, matrix_workspace
from acestep.units import gib

AMPERE = (8, 0)
"""From this compute capability on there is bf16, and PyTorch's flash kernel, which takes grouped queries."""


class CudaDevice(Accelerator):
    """The first visible card; `cap_bytes` bounds what this process may reserve on it."""

    def __init__(self, cap_bytes: int | None = None) -> None:
        # CUDA counts the fastest card first, NVML and so every plan by slot; it listens until its first call.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        device = torch.device("cuda", 0)
        capability, rocm = torch.cuda.get_device_capability(device), torch.version.hip is not None
        modern = not rocm and capability >= AMPERE
        half = torch.bfloat16 if modern or rocm else torch.float16
        workspace = ROCM_MATRIX_WORKSPACE if rocm else matrix_workspace(capability)
        super().__init__(torch.cuda, device, half, grouped=modern, workspace=workspace)
        self._cap = cap_bytes
        if cap_bytes is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            if not 0 < cap_bytes <= total:
                raise ValueError(f"a cap must be above 0 and within the card's {gib(total)}, got {gib(cap_bytes)}")
            # Torch multiplies back and rounds down: half a byte more lands on the cap instead of one byte below it.
            torch.cuda.set_per_process_memory_fraction(min(1.0, (cap_bytes + 0.5) / total), device)

    def free_bytes(self) -> int:
        """What the driver calls free plus what this process caches unused, within the cap."""
        usable = super().free_bytes()
        return usable if self._cap is None else min(usable, self._cap - self.allocated_bytes())
