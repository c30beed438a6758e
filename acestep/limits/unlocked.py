"""The plan where main memory cannot lock what is streamed: INT8 weights that stay whole, where they fit. Pure.

They are taken only if no song has to be shorter.

From memory that is not page-locked a copy does not run while the card computes, and takes several times as long: a song
of 60 s on an RTX 4060 9.5 s instead of 2.6 s (estimated).
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from acestep.knobs import STREAMING, Offload, Quantization
from acestep.limits.plan import Overrides, Plan
from acestep.tiers import BATCHES
from acestep.units import gib

LEAST_LOCKED: Final = 0.5
"""The share of the streamed weights that has to be locked: with less, most copies are slow ones."""


def streams_unlocked(plan: Plan, model: Mapping[str, float], lockable_bytes: int) -> bool:
    """Return whether a plan would stream weights of which main memory can lock too few bytes."""
    return plan.offload in STREAMING and lockable_bytes < LEAST_LOCKED * _streamed_bytes(plan, model)


def kept_whole(overrides: Overrides) -> Overrides | None:
    """Return the wishes for weights that are not streamed; None where the user has chosen how they are kept."""
    if overrides.offload is not UNSET or overrides.quantization is not UNSET:
        return None
    return msgspec.structs.replace(overrides, offload=Offload.CPU_DIT, quantization=Quantization.INT8)


def instead_of_streaming(plan: Plan, whole: Plan | None, model: Mapping[str, float], lockable_bytes: int) -> Plan:
    """Return the plan of `kept_whole` if it was granted and allows as long songs, else the plan.

    A sentence in `warnings` says why.
    """
    short = (
        f"Offload {plan.offload} copies {gib(_streamed_bytes(plan, model))} of weights to the card in every step, and"
        f" main memory can page-lock {gib(lockable_bytes)} for that now, too little."
    )
    if whole is None or not _keeps_whole(whole) or whole.lm != plan.lm or _shortens(whole, plan):
        sentence = f"{short} Songs take several times as long. Closing other programs helps."
        return msgspec.structs.replace(plan, warnings=(*plan.warnings, sentence))
    sentence = (
        f"{short} INT8 weights that stay on the card are used instead, which is several times as fast and changes songs"
        " a little. Closing other programs brings the exact weights back."
    )
    return msgspec.structs.replace(whole, warnings=(*whole.warnings, sentence))


def _keeps_whole(plan: Plan) -> bool:
    """Whether the wish for whole weights was granted."""
    return plan.offload is Offload.CPU_DIT and plan.quantization is not None


def _shortens(plan: Plan, other: Plan) -> bool:
    """Whether a plan allows a shorter song than the other, for any batch, with or without a language model."""
    return any(
        plan.frontier.longest(batch, lm=lm) < other.frontier.longest(batch, lm=lm)
        or plan.longest(batch, lm=lm) < other.longest(batch, lm=lm)
        for batch in BATCHES
        for lm in (False, True)
    )


def _streamed_bytes(plan: Plan, model: Mapping[str, float]) -> int:
    """The weights of the transformer: what offload cpu keeps on the card. 0 where the table does not say."""
    return int(model.get(f"{plan.quantization or 'none'}.{Offload.CPU}.rest", 0))
