"""The device of this run: of the cards that torch lists, the one that was chosen."""

import os

import msgspec
import torch

from acestep.devices.accelerator import CudaDevice, XpuDevice
from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice, MpsDevice
from acestep.hardware.card import CPU, Card, CardKind, cap_bytes
from acestep.hardware.detection import DEVICE_VARIABLE, Detection, look
from acestep.hardware.detection.choose import others
from acestep.hardware.detection.torch_cards import torch_index
from acestep.hardware.detection.visible import CUDA_VARIABLE
from acestep.limits.machine import plan_of
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan


def look_with_torch() -> Detection:
    """What is here, with what torch lists: the card that a run in this process opens.

    Of several NVIDIA cards only the chosen one is shown to CUDA from here on, by UUID, as long as CUDA was not asked
    yet: libraries that always take the first card then take that one. Raises `UsageError` as `look` does.
    """
    before = look(os.environ)
    chosen = before.card
    several = sum(card.kind is CardKind.CUDA for card in before.cards) > 1
    if not several or chosen.kind is not CardKind.CUDA or not chosen.uuid or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return look(os.environ, torch=torch)
    os.environ[CUDA_VARIABLE] = chosen.uuid
    if DEVICE_VARIABLE in os.environ:
        # A number would count the cards that are shown now.
        os.environ[DEVICE_VARIABLE] = chosen.uuid
    after = look(os.environ, torch=torch)
    remarks = after.remarks if after.obstacle else (*after.remarks, *others(chosen, before.cards))
    return msgspec.structs.replace(after, remarks=remarks)


def plan_to_run(overrides: Overrides = AS_THE_TIER_SAYS) -> Plan:
    """The plan of the card that a run in this process opens; its warnings begin with what to know about the cards."""
    return plan_of(look_with_torch(), overrides)


def open_here(found: Card | None = None) -> tuple[Device, Card]:
    """The device of this process, under the cap that the environment sets, and the card it is.

    It is the one that is detected, or the one that was `found` before. Raises `UsageError` for an environment variable
    that means nothing.
    """
    card = look_with_torch().card if found is None else found
    return open_device(card, cap_bytes(os.environ, card))


def open_device(card: Card, cap: int | None = None) -> tuple[Device, Card]:
    """The device to run on and the card it is; the CPU when this torch cannot use the card that was detected."""
    if card.kind in (CardKind.CUDA, CardKind.ROCM) and torch.cuda.is_available():
        return CudaDevice(cap, torch_index(torch, card)), card
    if card.kind is CardKind.XPU and torch.xpu.is_available():
        return XpuDevice(torch_index(torch, card)), card
    if card.kind is CardKind.MPS and torch.backends.mps.is_available():
        return MpsDevice(), card
    return CpuDevice(), CPU
