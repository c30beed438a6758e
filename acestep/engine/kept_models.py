"""The properties by which loaded models are kept from one request to the next."""

import msgspec
import torch

from acestep.adapters.choice import Adapter
from acestep.hardware.card import Card
from acestep.knobs import Knobs, Quantization, Variant

ModelKey = tuple[Variant, Quantization | None, torch.dtype, tuple[Adapter, ...]]
"""The properties of a loaded model."""


class LmKey(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a loaded language model: its knobs, its longest song in seconds, and its card if it has one."""

    knobs: Knobs
    longest_s: int
    card: Card | None
