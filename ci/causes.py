"""Findings with one cause as one line: memory that grew in many cells, or a field that is worse in many tiers. Pure."""

from collections.abc import Sequence

import msgspec

from acestep.units import mib
from calibrate.files import as_text
from ci.findings import GATE_RULES, JUDGE_CHANGES, Finding, FindingValue, Level

MEMORY = ("G301", "G302", "G304", "G306")
"""Rules about bytes; what one of them finds, the others may find in another cell."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Findings that have one cause, the worst first, and a sentence about all of them."""

    findings: tuple[Finding, ...]
    message: str

    @property
    def first(self) -> Finding:
        """The worst finding."""
        return self.findings[0]


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Return the causes of sorted findings, in the order of the worst finding of each."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(_key(finding), []).append(finding)
    return tuple(Cause(findings=tuple(group), message=_message(group)) for group in groups.values())


def shown_value(finding: Finding, value: FindingValue) -> str:
    """Return a value of a finding for a person: bytes as MiB."""
    of_bytes = finding.id in MEMORY or "_bytes" in finding.field
    return mib(value) if of_bytes and isinstance(value, int) and not isinstance(value, bool) else as_text(value)


def _key(finding: Finding) -> object:
    if finding.id in MEMORY and finding.component:
        return finding.level, finding.stage, finding.component
    # A finding about no cell stands alone, because its message is all that it says.
    return (finding.level, finding.id, finding.field) if finding.tier else id(finding)


def _message(group: Sequence[Finding]) -> str:
    first, places = group[0], {(finding.variant, finding.tier) for finding in group}
    if len(group) == 1:
        return first.message
    if first.id in JUDGE_CHANGES:
        return f"{first.message} So it is at {len(group) - 1} more places."
    where = f"in {len(places)} tier{'s' * (len(places) > 1)}"
    if first.id in MEMORY:
        shares = [round(100 * share) for finding in group if (share := _growth(finding)) is not None]
        least, most = min(shares, default=0), max(shares, default=0)
        grown = f"{most:+} %" if least == most else f"{least:+} to {most:+} %"
        full = sum(finding.id == "G301" for finding in group)
        beyond = f"; {full} of {len(group)} cells no longer fit" if full else ""
        return f"{first.stage} {grown} {where}: {first.component}{beyond}."
    changes = {f"{shown_value(one, one.before)} to {shown_value(one, one.after)}" for one in group}
    change = changes.pop() if len(changes) == 1 else f"{len(changes)} changes"
    told = "" if first.level is Level.ERROR else f", {first.level}"
    return f"{first.field} {where}: {change} ({GATE_RULES[first.id].promise}{told})."


def _growth(finding: Finding) -> float | None:
    before, after = finding.before, finding.after
    if isinstance(before, int | float) and isinstance(after, int | float) and before:
        return after / before - 1
    return None
