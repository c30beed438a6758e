"""What the card may do, as the command `acestep plan --json` says it."""

from collections.abc import Sequence

import msgspec

from acestep.adapters.choice import Adapter
from acestep.adapters.memory import memory_apart
from acestep.limits.adapter_bytes import adapter_bytes
from acestep.limits.capabilities import itemsize_of
from acestep.limits.machine import with_remarks
from acestep.limits.own_runs import known_times, own_ratios
from acestep.limits.plan import Plan
from acestep.limits.song_time import PlannedTimes, planned_times


class PlanDocument(Plan, frozen=True):
    """A plan, how long songs take under it, and the bytes of adapters beside the weights.

    `times` is null where nothing is known about that.
    """

    times: PlannedTimes | None = None
    adapter_bytes: int = 0


def plan_document(plan: Plan, adapters: Sequence[Adapter]) -> PlanDocument:
    """Return the document of a plan with `adapters`, with the times that own runs on this machine correct."""
    own, problem = own_ratios(plan)
    plan = with_remarks(plan, (problem,) if problem else ())
    taken = adapter_bytes(memory_apart(adapters), plan.offload, itemsize_of(plan.card, plan.variant))
    times = planned_times(plan, known_times(plan), own)
    return PlanDocument(**msgspec.structs.asdict(plan), times=times, adapter_bytes=taken)
