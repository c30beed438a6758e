"""Checks that the measurement files of a change are valid, and that the table follows from them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from acestep.errors import AceStepError
from acestep.evidence import short_digest
from acestep.tiers import TierTable
from calibrate.fingerprint import code_version
from calibrate.record.contributed import validate
from calibrate.record.measurement import Certificate, Measurement
from calibrate.record.rules import RuleLevel as RuleLevel
from calibrate.table.merge import build_table
from calibrate.table.policy import Policy
from calibrate.timing.tier_cards import made_from, times_evidence
from ci.findings import Finding, Level
from ci.promises import Promises

_SAME_CODE = "V103"

KnowsVersion = Callable[[str], bool]
"""Returns whether a code version is one of this repository."""


def file_findings(paths: Sequence[Path]) -> Iterator[Finding]:
    """Yield what `calibrate validate` reports about each file."""
    for path in paths:
        for broken in validate(path):
            # A record of other code is no problem here: the code of this tree is probed.
            if broken.id == _SAME_CODE:
                continue
            level = Level.ERROR if broken.level is RuleLevel.ERROR else Level.WARNING
            message = f"measurements/{path.name}, rule {broken.id}: {broken.message}"
            yield Finding(id="G104", level=level, field=broken.field, message=message)


def record_findings(base: Promises, head: Promises, known: KnowsVersion) -> Iterator[Finding]:
    """Yield the problems of records that are new or changed since the base."""
    there = {record.digest for record in base.records}
    versions = {record.code_version for record in base.records} | {code_version()}
    for record in head.records:
        if record.digest in there:
            continue
        if record.code_version not in versions and not known(record.code_version):
            yield _about(
                "G105",
                record,
                "code_version",
                f"was measured by {record.code_version}, which is no version of this repository; measure again",
            )
        if head.policy is not None:
            yield from _unbracketed(record, head.policy)


def table_sources_findings(base: Promises, head: Promises) -> Iterator[Finding]:
    """Yield digests in the head's table that belong to no record or policy."""
    made_from = base.table.generated_from
    records = {record.digest for record in head.records} | set(made_from.records)
    policies = {made_from.policy} | ({head.policy.digest} if head.policy else set())
    for digest in head.table.generated_from.records:
        if digest not in records:
            yield _invalid("G103", "generated_from.records", f"names {digest}, of which there is no record")
    if head.table.generated_from.policy not in policies:
        yield _invalid("G103", "generated_from.policy", f"is {head.table.generated_from.policy}, another policy's")
    cited = set(head.table.generated_from.records) | {head.table.generated_from.policy}
    for variant, entry in head.table.variants.items():
        for tier in (*entry.tiers, *entry.windows):
            for field, evidence in tier.evidence.items():
                if evidence.record not in cited:
                    problem = f"{variant} {tier.id} cites {evidence.record}, which the table was not made from"
                    yield _invalid("G103", f"evidence.{field}", problem)


def derivation_findings(head: Promises) -> Iterator[Finding]:
    """Yield a finding if merging the head's records would give another table."""
    if head.policy is None:
        return
    try:
        made = build_table(head.records, head.policy, head.waivers)
    except AceStepError as error:
        yield _invalid("G102", "generated_tiers.json", f"cannot be made from the records: {error}")
        return
    if made != head.table.without_times():
        yield _invalid("G102", "generated_tiers.json", "is not what the records make; run `python -m calibrate merge`")
    yield from stale_times(head.table)


def stale_times(table: TierTable) -> Iterator[Finding]:
    """Yield times that claim more than an estimate, and a warning for those that do not follow from what is here.

    They are no promise. And the plans and speeds here are the base's: where a change has others, its own `merge` writes
    other times.
    """
    for variant, entry in table.variants.items():
        for tier in entry.tiers:
            if (times := entry.times.get(tier.id)) is None:
                continue
            place = f"times.{tier.id} of {variant}"
            if times.evidence != times_evidence(tier):
                yield _invalid("G102", place, "have another evidence than their tier's estimate; merge again")
            elif times.made_from != made_from(table, variant, tier):
                problem = "are of other records, plans or cards than those here; does `calibrate merge` change them?"
                yield msgspec.structs.replace(_invalid("G102", place, problem), level=Level.WARNING)


def _unbracketed(record: Measurement, policy: Policy) -> Iterator[Finding]:
    """Yield certificates whose two sides are not neighbours among the lengths that are tried."""
    grid = policy.durations_s.values
    reached = {(c.cap_bytes, record.longest(c)) for c in record.certificates if c.fails is not None}
    for number, certificate in enumerate(record.certificates):
        fits, fails = record.longest(certificate), _shortest_failure(record, certificate)
        longer = [seconds for seconds in grid if seconds > fits]
        # A batch is tried up to the length that a smaller one, or the same songs without thinking, reached.
        limit = not longer or (certificate.cap_bytes, fits) in reached
        if not (fails == longer[0] if fails and longer else limit):
            told = (
                f"certificates[{number}]: {fits} s fit and {fails or 'nothing'} fails; a length between was not tried"
            )
            yield _about("G106", record, f"certificates[{number}]", told)


def _shortest_failure(record: Measurement, certificate: Certificate) -> int:
    """Return the seconds of the song that a certificate shows not to fit, 0 if there is none."""
    return 0 if certificate.fails is None else int(record.probes[certificate.fails].workload.duration_s)


def _about(rule: str, record: Measurement, field: str, problem: str) -> Finding:
    return _invalid(rule, field, f"the record {short_digest(record.digest)} of {record.card.name}: {problem}")


def _invalid(rule: str, field: str, problem: str) -> Finding:
    return Finding(id=rule, field=field, message=f"{field} {problem}.")
