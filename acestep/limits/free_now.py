"""The plan for what is free on the card now: the tier's own offload where the request fits, else the next that does."""

from collections.abc import Mapping

import msgspec

from acestep.knobs import Offload
from acestep.limits.fallbacks import moves_weights
from acestep.limits.plan import Plan
from acestep.limits.room import MemoryQuestion, needed_bytes
from acestep.units import gib


def fit_now(plan: Plan, question: MemoryQuestion, model: Mapping[str, float], free_bytes: int) -> Plan:
    """Return the plan with the first offload, from its own on, with which a request fits into the free bytes. Pure.

    A sentence in `warnings` says what is changed and why. Without a prediction the plan is unchanged; where nothing
    fits, it gets the offload that needs least.
    """
    own, found = needed_bytes(model, plan.knobs, question), offload_for(plan, question, model, free_bytes)
    if own is None or found is None:
        return plan
    best, needed = found
    enough = f"needs {gib(needed)}" if needed <= free_bytes else f"needs least, {gib(needed)}"
    sentence = (
        f"{gib(free_bytes)} of the card are free now, and this request needs {gib(own)} with offload {plan.offload}:"
        f" {best} is used as long as that is so, which {enough}. It takes longer, and the song stays the same. Closing"
        " other programs that use the card helps."
    )
    return msgspec.structs.replace(plan, offload=best, warnings=(*plan.warnings, sentence))


def offload_for(
    plan: Plan, question: MemoryQuestion, model: Mapping[str, float], free_bytes: int
) -> tuple[Offload, int] | None:
    """Return the first offload after the plan's own with which a request fits, or the one that needs least, and need.

    None where the plan's own fits or needs least, and without a prediction.
    """
    own = needed_bytes(model, plan.knobs, question)
    if own is None or own <= free_bytes or not moves_weights(plan.card):
        return None
    needs = {plan.offload: own}
    for offload in list(Offload)[list(Offload).index(plan.offload) + 1 :]:
        needed = needed_bytes(model, msgspec.structs.replace(plan.knobs, offload=offload), question)
        if needed is None:
            return None
        needs[offload] = needed
        if needed <= free_bytes:
            break
    best = min(needs, key=lambda offload: needs[offload])
    return None if best is plan.offload else (best, needs[best])
