"""Finds where a policy or a tolerance is less strict than the one at the base. Pure."""

from collections.abc import Iterator

from acestep.budgets import System
from acestep.knobs import Variant
from acestep.tiers import lm_rank
from calibrate.table.policy import Policy, TierPolicy, budget_bytes
from ci.findings import Finding, FindingValue
from ci.tolerance import Tolerance

STANDS_FOR_ALL = Variant.TURBO
"""The variant in a finding about the policy, which is the same for all of them."""


def policy_findings(base: Policy, head: Policy) -> Iterator[Finding]:
    """Yield everything that the head's policy requires less of a tier, or gives more to a card."""
    tiers = {tier.id: tier for tier in head.tiers}
    for tier in base.tiers:
        if tier.id not in tiers:
            yield _finding("G501", tier.id, "id", tier.id, None)
            continue
        yield from _looser_budget(base, head, tier)
        yield from _asks_less(tier, tiers[tier.id])
    lengths, lengths_now = base.durations_s.values, head.durations_s.values
    if not set(lengths) <= set(lengths_now):
        yield _finding("G404", "policy", "durations_s", ", ".join(map(str, lengths)), ", ".join(map(str, lengths_now)))
    if base.compile.default and not head.compile.default:
        yield _finding("G404", "policy", "compile", True, False)
    rungs, rungs_now = ([f"{r.offload} {r.quantization}" for r in p.preference] for p in (base, head))
    # A rung added at the end only adds a way to fit; any other change of order gives up something earlier.
    if rungs_now[: len(rungs)] != rungs:
        yield _finding("G404", "policy", "preference", ", ".join(rungs), ", ".join(rungs_now))


def tolerance_findings(base: Tolerance, head: Tolerance) -> Iterator[Finding]:
    """A tolerance that was raised."""
    if head.peak_share > base.peak_share:
        yield _finding("G403", "policy", "peak_share", base.peak_share, head.peak_share)


def _looser_budget(base: Policy, head: Policy, tier: TierPolicy) -> Iterator[Finding]:
    size = tier.certified_gib
    for system in System:
        before, after = budget_bytes(size, base, system), budget_bytes(size, head, system)
        if after > before:
            field = "budget_bytes" if system is System.LINUX else f"budget_bytes.{system}"
            yield _finding("G401", tier.id, field, before, after)


def _asks_less(before: TierPolicy, after: TierPolicy) -> Iterator[Finding]:
    if after.certified_gib > before.certified_gib:
        yield _finding("G402", before.id, "policy.certified_gib", before.certified_gib, after.certified_gib)
    if lm_rank(after.least_lm) < lm_rank(before.least_lm):
        yield _finding("G404", before.id, "policy.least_lm", before.least_lm, after.least_lm)
    if before.init_lm and not after.init_lm:
        yield _finding("G404", before.id, "policy.init_lm", True, False)
    if not set(before.backends_allowed) <= set(after.backends_allowed):
        allowed, allowed_now = (", ".join(tier.backends_allowed) for tier in (before, after))
        yield _finding("G404", before.id, "policy.backends_allowed", allowed, allowed_now)
    formats, formats_now = (", ".join(str(f) for f in t.lm_quantizations) for t in (before, after))
    if not set(after.lm_quantizations) <= set(before.lm_quantizations):
        yield _finding("G404", before.id, "policy.lm_quantizations", formats, formats_now)


def _finding(rule: str, tier: str, field: str, before: FindingValue, after: FindingValue) -> Finding:
    return Finding(
        id=rule,
        variant=STANDS_FOR_ALL,
        tier=tier,
        field=field,
        before=before,
        after=after,
        message=f"policy, {tier}: {field} is {after}, at the base it is {before}.",
    )
