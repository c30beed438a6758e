"""What the card may do, as `acestep plan --json` and the HTTP API say it."""

import msgspec

from acestep.adapter_memory import AdapterMemory
from acestep.limits.adapter_bytes import adapter_bytes
from acestep.limits.capabilities import itemsize_of
from acestep.limits.machine import with_remarks
from acestep.limits.own_runs import known_times, own_ratios
from acestep.limits.plan import Plan
from acestep.limits.song_time import PlannedTimes, planned_times


class PlanDocument(Plan, frozen=True):
    """A plan, and how long songs take under it; `times` is null where nothing is known about that.

    `adapter_bytes` are those that adapters beside the weights take on the card.
    """

    times: PlannedTimes | None = None
    adapter_bytes: int = 0


def plan_document(plan: Plan, adapters: AdapterMemory) -> PlanDocument:
    """Return the document of a plan beside adapters, with the times that own runs on this machine correct."""
    own, problem = own_ratios(plan)
    plan = with_remarks(plan, (problem,) if problem else ())
    return PlanDocument(
        **msgspec.structs.asdict(plan),
        times=planned_times(plan, known_times(plan), own),
        adapter_bytes=adapter_bytes(adapters, plan.offload, itemsize_of(plan.card, plan.variant)),
    )
