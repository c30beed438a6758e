"""Checks that a tier warns about requests above its limits, using the same plan that users get."""

from acestep.hardware.card import Card
from acestep.knobs import Backend
from acestep.limits import plan as planning
from acestep.limits.plan import Overrides, Plan
from acestep.request import Request
from acestep.tiers import TierTable


def missing_warnings(card: Card, table: TierTable, plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each request above the plan's limits that gave no warning.

    A plan without any limit cannot be exceeded; that it promises nothing is reported elsewhere.
    """
    missing = []
    for lm in (False, True) if plan.lm is not None else (False,):
        longest, most = plan.max_duration_s.of(lm=lm), plan.max_batch.of(lm=lm)
        where = " with a language model" if lm else ""
        if longest and _passes_unnoticed(plan, lm=lm, duration_s=longest + 1, batch=1):
            over = f"A song of {longest + 1} s{where}, one second over the limit,"
            missing.append(f"{over} was let through without a warning.")
        if longest and _passes_unnoticed(plan, lm=lm, duration_s=longest, batch=most + 1):
            over = f"A batch of {most + 1}{where}, one song over the limit,"
            missing.append(f"{over} was let through without a warning.")
    if Backend.VLLM not in plan.backends_allowed:
        answer = planning.resolve(card, table, Overrides(variant=plan.variant, backend=Backend.VLLM))
        if answer.backend is Backend.VLLM or set(answer.warnings) <= set(plan.warnings):
            missing.append("Backend vllm is not allowed here, and was not refused with a warning.")
    return tuple(missing)


def _passes_unnoticed(plan: Plan, *, lm: bool, duration_s: float, batch: int) -> bool:
    """Return whether the plan says nothing about a request, or leaves one unchanged that is not predicted to fit."""
    request = Request(caption="", duration_s=duration_s, batch=batch)
    clamped, warnings = planning.clamp(request, plan, lm=lm)
    return not warnings or (clamped == request and plan.longest(batch, lm=lm) < duration_s)
