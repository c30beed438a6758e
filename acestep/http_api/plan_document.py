"""What the card may do, as the command `acestep plan --json` says it."""

import msgspec

from acestep.limits.machine import with_remarks
from acestep.limits.own_runs import known_times, own_ratios
from acestep.limits.plan import Plan
from acestep.limits.song_time import PlannedTimes, planned_times


class PlanDocument(Plan, frozen=True):
    """A plan, and how long songs take under it; `times` is null where nothing is known about that."""

    times: PlannedTimes | None = None


def plan_document(plan: Plan) -> PlanDocument:
    """Return the document of a plan, with the times that own runs on this machine correct."""
    own, problem = own_ratios(plan)
    plan = with_remarks(plan, (problem,) if problem else ())
    return PlanDocument(**msgspec.structs.asdict(plan), times=planned_times(plan, known_times(plan), own))
