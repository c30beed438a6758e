"""Opens the device of this run: the chosen one of the cards that torch lists."""

import os

import msgspec
import torch

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.devices.accelerator import CudaDevice, XpuDevice
from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice, MpsDevice, cpu_dtype
from acestep.hardware.card import CPU, Card, CardKind, cap_bytes
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE, Detection, look
from acestep.hardware.detection.choose import others
from acestep.hardware.detection.torch_cards import torch_index
from acestep.hardware.detection.visible import CUDA_VARIABLE
from acestep.limits.machine import plan_of
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan
from acestep.request import Request


def look_with_torch() -> Detection:
    """Detect the cards, including those that torch lists: this finds the card that a run in this process opens.

    Of several NVIDIA cards only the chosen one stays visible to CUDA from here on, by UUID, and after it the language
    model's, unless CUDA was initialised before. Libraries that always take the first card then take the chosen one.
    Raises `UsageError` as `look` does.
    """
    before = look(os.environ)
    chosen = before.card
    several = sum(card.kind is CardKind.CUDA for card in before.cards) > 1
    if not several or chosen.kind is not CardKind.CUDA or not chosen.uuid or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return look(os.environ, torch=torch)
    second = before.lm_card if before.lm_card is not None and before.lm_card.uuid else None
    os.environ[CUDA_VARIABLE] = ",".join(card.uuid for card in (chosen, second) if card is not None)
    # A number would be an index into the cards that are visible now.
    if DEVICE_VARIABLE in os.environ or second is not None:
        os.environ[DEVICE_VARIABLE] = chosen.uuid
    if second is not None:
        os.environ[LM_DEVICE_VARIABLE] = second.uuid
    after = look(os.environ, torch=torch)
    unused = [card for card in before.cards if card != before.lm_card]
    remarks = after.remarks if after.obstacle else (*after.remarks, *others(chosen, unused))
    return msgspec.structs.replace(after, remarks=remarks)


def plan_to_run(
    overrides: Overrides = AS_THE_TIER_SAYS, request: Request | None = None, adapters: AdapterMemory = NO_ADAPTERS
) -> Plan:
    """Return the plan of the card that a run in this process opens, for a request if there is one.

    Its warnings begin with remarks about the cards. `adapters` are those that are not part of the weights.
    """
    return plan_of(look_with_torch(), overrides, request, adapters)


def open_here(found: Card | None = None) -> tuple[Device, Card]:
    """Open the device of this process, under the cap set in the environment; return it and its card.

    The card is detected, or it is `found`, an earlier detection. Raises `UsageError` for an invalid environment
    variable.
    """
    card = look_with_torch().card if found is None else found
    return open_device(card, cap_bytes(os.environ, card))


def open_device(card: Card, cap: int | None = None, *, current: bool = True) -> tuple[Device, Card]:
    """Open the device of a card; return it and its card. It is the CPU if this torch cannot use the detected card.

    The `current` device is that of code which names none; a second device is not.
    """
    if card.kind in (CardKind.CUDA, CardKind.ROCM) and torch.cuda.is_available():
        return CudaDevice(cap, torch_index(torch, card), current=current), card
    if card.kind is CardKind.XPU and torch.xpu.is_available():
        return XpuDevice(torch_index(torch, card), current=current), card
    if card.kind is CardKind.MPS and torch.backends.mps.is_available():
        return MpsDevice(), card
    return CpuDevice(cpu_dtype()), CPU
