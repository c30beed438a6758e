"""The properties by which loaded models are kept from one request to the next."""

from collections.abc import Sequence

import msgspec
import torch

from acestep.adapters.choice import Adapter
from acestep.adapters.files import changed_values
from acestep.adapters.memory import memory_apart
from acestep.checkpoints.host_memory import Weights
from acestep.hardware.card import Card
from acestep.knobs import Knobs, Quantization, Variant
from acestep.limits.plan import Plan

ModelKey = tuple[Variant, Quantization | None, torch.dtype, tuple[Adapter, ...]]
"""The properties of a loaded model, with the adapters that are part of its weights."""


class LmKey(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a loaded language model: its knobs, its longest song in seconds, and its card if it has one."""

    knobs: Knobs
    longest_s: int
    card: Card | None


def weights_to_load(model: str, plan: Plan, adapters: Sequence[Adapter]) -> Weights:
    """Return what is loaded for songs of a model with adapters, to look whether main memory has room for it."""
    return Weights(
        model=model,
        variant=plan.variant,
        quantization=plan.quantization,
        fused_values=changed_values(one.path for one in adapters if one.fused),
        apart_values=sum(memory_apart(adapters).tensors),
    )
