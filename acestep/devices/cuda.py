"""A CUDA or ROCm card, and the one place where a cap is put on it."""

import os
import warnings

import torch

from acestep.capabilities import computes_in_float32, groups_attention, matrix_workspace_of
from acestep.devices.accelerator import Accelerator
from acestep.devices.cap import fraction_for
from acestep.hardware import Card, CardKind

# CUDA counts the fastest card first, NVML and so every plan by slot. It listens until anybody first asks it for cards.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

# Why a card cannot be used is told in a sentence of ours, with what to do.
warnings.filterwarnings("ignore", message="CUDA initialization")


class CudaDevice(Accelerator):
    """The card of an index of torch's; `cap_bytes` bounds what this process may reserve on it."""

    def __init__(self, cap_bytes: int | None = None, index: int = 0) -> None:
        device = torch.device("cuda", index)
        if index:
            # What names no card of its own, such as page-locked memory and Triton, takes the current one.
            torch.cuda.set_device(device)
        kind = CardKind.CUDA if torch.version.hip is None else CardKind.ROCM
        card = Card(kind=kind, name="", capability=torch.cuda.get_device_capability(device))
        dtype = torch.float32 if computes_in_float32(card) else torch.bfloat16
        # Where it comes first, on data-centre cards, it plans anew for every length of keys, and takes workspaces.
        torch.backends.cuda.enable_cudnn_sdp(False)
        grouped = groups_attention(card) and torch.backends.cuda.is_flash_attention_available()
        super().__init__(torch.cuda, device, dtype, grouped=grouped, workspace=matrix_workspace_of(card))
        self._cap = cap_bytes
        if cap_bytes is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(fraction_for(cap_bytes, total), device)

    def free_bytes(self) -> int:
        """What the driver calls free plus what this process caches unused, within the cap."""
        usable = super().free_bytes()
        return usable if self._cap is None else min(usable, self._cap - self.allocated_bytes())
