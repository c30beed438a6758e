"""Opens what plans the songs of a request, or leaves planning out where it is impossible."""

from collections.abc import Callable

import msgspec

from acestep.engine.pipeline import UNABLE_TO_THINK
from acestep.errors import HostMemoryError, InvalidInputError, NotEnoughMemoryError, UsageError
from acestep.limits.plan import Plan
from acestep.lm.songwriting import without_language
from acestep.lm.stage import Thinker
from acestep.request import Request


def settle_thinking(
    request: Request, plan: Plan, open_thinker: Callable[[], Thinker], warn: Callable[[str], None], *, unasked: bool
) -> tuple[Request, Thinker]:
    """Open the thinker of a request; return the request without thinking if it cannot be planned."""
    without = msgspec.structs.replace(request, think=False)
    if request.think and not request.thinks and not unasked:
        warn(f"A song is planned before it is made; to {request.task} is to work on one that exists, without planning.")
    if not request.thinks:
        return without, UNABLE_TO_THINK
    if plan.lm is None:
        if not unasked:
            warn(f"The song is made without planning: {without_language(plan)}.")
        return without, UNABLE_TO_THINK
    try:
        return request, open_thinker()
    except (InvalidInputError, UsageError, HostMemoryError, NotEnoughMemoryError) as error:
        if not unasked:
            raise
        problem = str(error)
    warn(f"The song is made without planning: {problem}.")
    return without, UNABLE_TO_THINK
