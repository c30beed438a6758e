"""The CUDA card of a prober's child: capped, checked, and emptied between runs."""

import gc
import os

import torch

from acestep.devices.accelerator import CudaDevice
from acestep.errors import NotMeasuredError
from acestep.hardware.detection.torch_cards import identity
from acestep.hardware.detection.visible import CUDA_VARIABLE
from calibrate.fingerprint import ALLOCATOR_SETTINGS


class CudaCard:
    """The first visible card."""

    def open(self) -> torch.dtype:
        """Create the context; raise `NotMeasuredError` if torch has no usable card."""
        if not torch.cuda.is_available():
            raise NotMeasuredError(f"torch {torch.__version__} finds no CUDA card it can use; is the driver too old?")
        require_named(os.environ.get(CUDA_VARIABLE, ""), str(torch.cuda.get_device_properties(0).uuid))
        torch.cuda.synchronize()
        return CudaDevice().dtype

    def capped(self, cap_bytes: int) -> CudaDevice:
        device = CudaDevice(cap_bytes)
        require_held(cap_bytes)
        return device

    def settings(self) -> str:
        return next((os.environ[name] for name in ALLOCATOR_SETTINGS if name in os.environ), "")

    def outside_bytes(self) -> int:
        """Bytes used according to the driver, minus those that this process's allocator holds."""
        free, total = torch.cuda.mem_get_info()
        return max(0, int(total - free - torch.cuda.memory_reserved()))

    def flush(self) -> int:
        """Empty the caches, including cuBLAS's workspaces, and reset the peaks."""
        gc.collect()
        # If they were kept, the first run of a child would differ from the others; there is no public function.
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_reserved())


def require_named(asked: str, opened: str) -> None:
    """Raise `NotMeasuredError` if torch opened a board with another UUID than requested."""
    if asked.startswith("GPU-") and identity(asked) != identity(opened):
        raise NotMeasuredError(f"torch opened the card {opened} where {asked} was to be measured")


def require_held(cap_bytes: int) -> None:
    """Raise `NotMeasuredError` unless the allocator reports this cap."""
    total = torch.cuda.get_device_properties(0).total_memory
    # Torch stores bytes but reports the quotient; multiplied by the total it can be slightly lower.
    held = round(torch.cuda.get_per_process_memory_fraction(0) * total)
    if held != cap_bytes:
        raise NotMeasuredError(f"the allocator holds to {held} bytes where a cap of {cap_bytes} was asked for")
