"""Checks that a stage does no more work than its record says: what costs time on every card, seen without one."""

from collections.abc import Iterator

from msgspec import UNSET

from calibrate.probes.base import MeasuredStage
from ci.cells import GateCell, finding_of
from ci.findings import Finding

_NAMES = {
    "flops": "operations",
    "memory_bytes": "bytes read and written",
    "launches": "kernel launches",
    "transferred_bytes": "bytes between host and card",
    "waits": "waits of the processor for the card",
}


def work_findings(cell: GateCell, before: MeasuredStage, after: MeasuredStage, share: float) -> Iterator[Finding]:
    """Yield a finding for each sum of a stage's work that is more than `share` above its record, if that has it."""
    if before.work is UNSET or after.work is UNSET:
        return
    for name, words in _NAMES.items():
        then, now = getattr(before.work, name), getattr(after.work, name)
        if UNSET in (then, now):
            continue
        if now > then * (1 + share):
            grown = f"{now / then - 1:+.1%}" if then else "from none"
            yield finding_of(
                "G307",
                cell,
                f"{after.name}.{name}",
                f"{after.name} takes more {words}, {grown}: songs take longer on every card",
                before=then,
                after=now,
                stage=after.name,
                component=name,
            )
