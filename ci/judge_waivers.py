"""Waivers: allowed regressions, and expired or unused waivers. Pure."""

import datetime
from collections.abc import Collection, Sequence

import msgspec

from acestep.tiers import TierTable
from acestep.units import mib
from calibrate.files import as_text
from calibrate.table.policy import Policy, budget_bytes
from calibrate.table.targets import BOUND
from calibrate.table.waivers import FLOOR, RECORD, Waiver
from ci.doors import ANY_TIER
from ci.findings import GATE_RULES, Finding, FindingValue, GateVerdict, Level
from ci.judge_plans import STAGE
from ci.judge_scenarios import SCENARIO
from ci.judge_table import STATES, is_field, still_lost

OF_CODE = {*STATES, "steps", STAGE, SCENARIO}
"""Parts of the fields that only running the code can judge, beside fields of the table with the same parts."""

OF_BYTES = "_bytes."
"""Part of every field that is a number of bytes with or without a language model."""


def with_waivers(findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date) -> tuple[Finding, ...]:
    """Return the findings, with those that a valid waiver covers turned into notices."""
    standing = [waiver for waiver in waivers if not waiver.expired(today)]
    return tuple(_excused(finding, standing) for finding in findings)


def stale_findings(
    findings: Sequence[Finding],
    table: TierTable,
    waivers: Sequence[Waiver],
    granted: Sequence[Waiver],
    today: datetime.date,
    *,
    code_judged: bool,
    not_simulated: Collection[str] = (),
) -> list[Finding]:
    """Return expired waivers, and those that cover nothing.

    A waiver that was `granted` at the base counts as used as long as its cell still has the allowed value. One of a
    variant that the table does not have is not judged, and one of a field that only running the code can judge is not
    judged where no code was run, or none of its variant.
    """
    stale = []
    for waiver in waivers:
        if waiver.expired(today):
            stale.append(_stale("G601", waiver, f"ended on {waiver.until}"))
            continue
        of_code = not is_field(waiver.field) and not OF_CODE.isdisjoint(waiver.field.split("."))
        inherited = _is_granted(waiver, granted) and (of_code or _still_needed(waiver, table))
        unseen = of_code and (not code_judged or waiver.variant in not_simulated)
        if not (_is_used(waiver, findings, table) or inherited or unseen):
            stale.append(_stale("G602", waiver, "covers nothing that this change takes away"))
    return stale


def brought_findings(
    findings: Sequence[Finding],
    table: TierTable,
    waivers: Sequence[Waiver],
    granted: Sequence[Waiver],
    today: datetime.date,
) -> list[Finding]:
    """Return a finding for each waiver in use that allows more, or longer, than those `granted` at the base.

    A change does not allow itself what it makes worse.
    """
    return [
        Finding(
            id="G208",
            variant=waiver.variant,
            tier=waiver.tier,
            field=waiver.field,
            after=waiver.value,
            message=(
                f"{waiver.variant} {waiver.tier}, {waiver.field}: the change brings the waiver that allows it"
                f" ({waiver.why}): a maintainer has to review it."
            ),
        )
        for waiver in waivers
        if not _is_granted(waiver, granted) and not waiver.expired(today) and _is_used(waiver, findings, table)
    ]


def unbounded_findings(waivers: Sequence[Waiver], policy: Policy | None) -> list[Finding]:
    """Return a finding for each waiver that allows more bytes than a card of its tier leaves to the allocator."""
    tiers = [tier for tier in policy.tiers if tier.vram_gib.upper is not None] if policy else []
    budgets = {tier.id: budget_bytes(tier.certified_gib, policy) for tier in tiers if policy}
    budgets |= {ANY_TIER: max(budgets.values())} if budgets else {}
    return [
        _stale("G603", waiver, f"allows {mib(waiver.value)}, a card of this tier has {mib(budgets[waiver.tier])}")
        for waiver in waivers
        if OF_BYTES in f"{waiver.field}."
        and isinstance(waiver.value, int)
        and waiver.value > budgets.get(waiver.tier, waiver.value)
    ]


def _is_used(waiver: Waiver, findings: Sequence[Finding], table: TierTable) -> bool:
    """Return whether a waiver covers something: a finding, a shortfall of the table, or a record that raises a tier."""
    return (
        any(_covers(waiver, finding) for finding in findings)
        or _covers_shortfall(waiver, table)
        or _raises(waiver, table)
    )


def _is_granted(waiver: Waiver, granted: Sequence[Waiver]) -> bool:
    """Return whether a waiver of the same cell at the base allows as much, for as long; reasons allow nothing."""
    return any(
        _cell(there) == _cell(waiver) and _allows(there, waiver.value) and _last_day(waiver) <= _last_day(there)
        for there in granted
    )


def _cell(waiver: Waiver) -> tuple[str, str, str]:
    return waiver.variant, waiver.tier, waiver.field


def _last_day(waiver: Waiver) -> datetime.date:
    return datetime.date.max if waiver.until == FLOOR else datetime.date.fromisoformat(waiver.until)


def _excused(finding: Finding, standing: Sequence[Waiver]) -> Finding:
    if finding.level is not Level.ERROR or GATE_RULES[finding.id].verdict is not GateVerdict.REGRESSED:
        return finding
    waiver = next((waiver for waiver in standing if _covers(waiver, finding)), None)
    if waiver is None:
        return finding
    message = f"{finding.message} Allowed until {waiver.until}: {waiver.why}"
    return msgspec.structs.replace(finding, level=Level.NOTICE, message=message)


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return _cell(waiver) == (finding.variant, finding.tier, finding.field) and _allows(waiver, finding.after)


def _allows(waiver: Waiver, value: FindingValue) -> bool:
    """Return whether a value of the waiver's cell is allowed: bytes up to its own, all others if they are equal."""
    if OF_BYTES in f"{waiver.field}." and isinstance(waiver.value, int) and isinstance(value, int):
        return value <= waiver.value
    return as_text(value) == as_text(waiver.value)


def _covers_shortfall(waiver: Waiver, table: TierTable) -> bool:
    return any(waiver.covers(BOUND, short.tier, short.field, short.generated) for short in table.shortfalls)


def _raises(waiver: Waiver, table: TierTable) -> bool:
    """Return whether a tier rests on the record for which a maintainer answers."""
    entry = table.variants.get(waiver.variant)
    tiers = [tier for tier in entry.tiers if tier.id == waiver.tier] if entry and waiver.field == RECORD else []
    return any(evidence.record == waiver.value for tier in tiers for evidence in tier.evidence.values())


def _still_needed(waiver: Waiver, table: TierTable) -> bool:
    entry = table.variants.get(waiver.variant)
    return entry is None or still_lost(entry, waiver.tier, waiver.field, as_text(waiver.value))


def _stale(rule: str, waiver: Waiver, problem: str) -> Finding:
    place = f"{waiver.variant} {waiver.tier}, {waiver.field}"
    return Finding(
        id=rule,
        variant=waiver.variant,
        tier=waiver.tier,
        field=waiver.field,
        after=waiver.value,
        message=f"the waiver for {place} {problem}; take it out of waivers.json, or renew it with its reason.",
    )
