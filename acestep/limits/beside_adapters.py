"""The plan of songs whose adapters stay apart from the weights: more offload where both do not fit together. Pure."""

from collections.abc import Mapping

import msgspec

from acestep.limits.adapter_bytes import adapter_bytes
from acestep.limits.free_now import offload_for
from acestep.limits.plan import Plan
from acestep.limits.room import MemoryQuestion
from acestep.units import gib


def beside_adapters(plan: Plan, question: MemoryQuestion, model: Mapping[str, float], room_bytes: int) -> Plan:
    """Return the plan with the first offload, from its own on, with which a request and its adapters fit on the card.

    The tiers are certified without adapters. A sentence in `warnings` says what is changed.
    """
    taken = adapter_bytes(question.demand.adapters, plan.offload, question.demand.itemsize)
    found = offload_for(plan, question, model, room_bytes) if taken else None
    if found is None:
        return plan
    offload, needed = found
    sentence = (
        f"The adapters take {gib(taken)} beside the weights, and songs may take {gib(room_bytes)} of this card: offload"
        f" {offload} is used with them, and this song needs {gib(needed)}. Without --lora-unfused they take nothing."
    )
    return msgspec.structs.replace(plan, offload=offload, warnings=(*plan.warnings, sentence))
