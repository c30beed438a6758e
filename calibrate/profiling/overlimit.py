"""Does a tier say so when more is asked of it than it can give? Asked of the same plan that people get."""

from acestep import plan as planning
from acestep.hardware import Card
from acestep.knobs import Backend
from acestep.plan import Overrides, Plan
from acestep.request import Request
from acestep.tiers import TierTable


def missing_warnings(card: Card, table: TierTable, plan: Plan) -> tuple[str, ...]:
    """A sentence for each request above the plan's limits that was let through without a word.

    A plan without any limit has none to pass; that it promises nothing is said elsewhere.
    """
    missing = []
    longest, most = plan.max_duration_s.without_lm, plan.max_batch.without_lm
    if longest and _passes_unnoticed(plan, duration_s=longest + 1, batch=1):
        missing.append(f"A song of {longest + 1} s, one second over the limit, was let through without a warning.")
    if longest and _passes_unnoticed(plan, duration_s=longest, batch=most + 1):
        missing.append(f"A batch of {most + 1}, one song over the limit, was let through without a warning.")
    if Backend.VLLM not in plan.backends_allowed:
        answer = planning.resolve(card, table, Overrides(variant=plan.variant, backend=Backend.VLLM))
        if answer.backend is Backend.VLLM or set(answer.warnings) <= set(plan.warnings):
            missing.append("Backend vllm is not allowed here, and was not refused with a warning.")
    return tuple(missing)


def _passes_unnoticed(plan: Plan, *, duration_s: float, batch: int) -> bool:
    """Whether a request comes out of the plan uncut, or cut without a sentence about it."""
    request = Request(caption="", duration_s=duration_s, batch=batch)
    clamped, warnings = planning.clamp(request, plan, lm=False)
    return clamped == request or not warnings
