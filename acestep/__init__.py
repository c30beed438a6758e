"""ACE-Step 1.5 with limits that are measured. Importing this package imports no torch; using `generate` does."""

import os
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acestep.adapters.choice import Adapter
    from acestep.api import audio_codes, open_model, understand
    from acestep.hardware.card import Card
    from acestep.limits.plan import Plan
    from acestep.lm.songwriting import create_sample, format_sample, plan_song
    from acestep.request import Request
    from acestep.result import Result
    from acestep.tiers import load_tiers

__all__ = [
    "Request",
    "audio_codes",
    "create_sample",
    "format_sample",
    "generate",
    "load_tiers",
    "open_model",
    "plan_song",
    "resolve_plan",
    "understand",
]

_ELSEWHERE = {
    "load_tiers": "acestep.tiers",
    "Request": "acestep.request",
    "plan_song": "acestep.lm.songwriting",
    "audio_codes": "acestep.api",
    "open_model": "acestep.api",
    "understand": "acestep.api",
    "create_sample": "acestep.lm.songwriting",
    "format_sample": "acestep.lm.songwriting",
}
"""Names that are imported from their modules at first use, because some of these modules import torch."""


def resolve_plan(card: "Card | None" = None, *, lm_device: str = "", **overrides: Any) -> "Plan":
    """Return the plan of this machine's card, or of `card`.

    `lm_device` is the card that the language model runs on from now on in this process, as `--lm-device` names it.
    `overrides` are fields of `acestep.limits.plan.Overrides` as values or as text, None for none: ``offload="cpu"``,
    ``lm=None``. Raises `UsageError` for an unknown field or value.
    """
    from acestep.hardware.detection.choose import LM_DEVICE_VARIABLE
    from acestep.limits.machine import plan_here
    from acestep.limits.plan import overrides_from

    if lm_device:
        os.environ[LM_DEVICE_VARIABLE] = lm_device
    return plan_here(overrides_from(overrides), card)


def generate(
    request: "Request",
    plan: "Plan | None" = None,
    *,
    lora: "Iterable[str | os.PathLike[str] | Adapter]" = (),
    lora_unfused: bool = False,
) -> "Result":
    """Make the songs of a request, under `plan` or this machine's own plan.

    `lora` are adapters to use, LoRA or LoKr: files or folders, with a scale if they are text, such as ``"folk:0.8"``.
    They become part of the weights, or with `lora_unfused` stay apart from them. Raises `InvalidInputError` when the
    weights are missing or an adapter cannot be used, and `RunFailedError` when every retry runs out of memory.
    """
    from acestep.api import generate as make

    return make(request, plan, lora=lora, lora_unfused=lora_unfused)


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
