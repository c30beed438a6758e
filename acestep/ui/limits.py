"""Where the sliders end: at the frontier, for the batch and the thinking that are chosen. Pure."""

import msgspec

from acestep.plan import Plan
from acestep.request import MAX_DURATION_S
from acestep.tiers import BATCHES


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The largest batch, the longest song in seconds, and what is left of a wish within both; 0 s stays open.

    `can_think` says whether there is a language model at all.
    """

    max_batch: int
    max_duration_s: int
    batch: int
    duration_s: float
    can_think: bool


def limits_of(plan: Plan, *, think: bool, batch: int, duration_s: float) -> Limits:
    """The ends of both sliders. A larger batch shortens the songs, as in `acestep.plan.clamp` a longer song the batch.

    Where not even one song is certified, one of any length may be tried.
    """
    lm = think and plan.lm is not None
    most = max((size for size in BATCHES if plan.frontier.longest(size, lm=lm)), default=1)
    batch = min(max(batch, 1), most)
    longest = plan.frontier.longest(batch, lm=lm) or int(MAX_DURATION_S)
    return Limits(
        max_batch=most,
        max_duration_s=longest,
        batch=batch,
        duration_s=min(duration_s, longest),
        can_think=plan.lm is not None,
    )
