"""The device of this run, for the card that was detected."""

import os

import torch

from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice
from acestep.devices.cuda import CudaDevice
from acestep.devices.mps import MpsDevice
from acestep.devices.xpu import XpuDevice
from acestep.hardware import CPU, Card, CardKind, cap_bytes, detect


def open_here(found: Card | None = None) -> tuple[Device, Card]:
    """The device of this process, under the cap that the environment sets, and the card it is.

    It is the one that is detected, or the one that was `found` before. Raises `UsageError` for an environment variable
    that means nothing.
    """
    card = detect(os.environ) if found is None else found
    return open_device(card, cap_bytes(os.environ, card))


def open_device(card: Card, cap: int | None = None) -> tuple[Device, Card]:
    """The device to run on and the card it is; the CPU when this torch cannot use the card that was detected."""
    if card.kind in (CardKind.CUDA, CardKind.ROCM) and torch.cuda.is_available():
        return CudaDevice(cap), card
    if card.kind is CardKind.XPU and torch.xpu.is_available():
        return XpuDevice(), card
    if card.kind is CardKind.MPS and torch.backends.mps.is_available():
        return MpsDevice(), card
    return CpuDevice(), CPU
