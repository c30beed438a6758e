"""The device of this run, for the card that was detected."""

import torch

from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice
from acestep.devices.cuda import CudaDevice
from acestep.devices.mps import MpsDevice
from acestep.devices.xpu import XpuDevice
from acestep.hardware import CPU, Card, CardKind


def open_device(card: Card, cap_bytes: int | None = None) -> tuple[Device, Card]:
    """The device to run on and the card it is; the CPU when this torch cannot use the card that was detected."""
    if card.kind in (CardKind.CUDA, CardKind.ROCM) and torch.cuda.is_available():
        return CudaDevice(cap_bytes), card
    if card.kind is CardKind.XPU and torch.xpu.is_available():
        return XpuDevice(), card
    if card.kind is CardKind.MPS and torch.backends.mps.is_available():
        return MpsDevice(), card
    return CpuDevice(), CPU
