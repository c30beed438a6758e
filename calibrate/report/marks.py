"""Evidence as a page shows it: one mark for each kind, and the start of a record's digest."""

from collections.abc import Iterable, Iterator

from acestep.errors import NotMeasuredError
from acestep.evidence import Evidence, EvidenceKind, short_digest
from acestep.tiers import Tier

MARKS = {
    EvidenceKind.MEASURED: "●",
    EvidenceKind.VIRTUAL: "◕",
    EvidenceKind.SIMULATED: "◐",
    EvidenceKind.ESTIMATED: "○",
}
"""A mark for each kind of evidence, the strongest first. What policy decided has none."""

GAP = "\N{NO-BREAK SPACE}"
"""Between a value and its mark, which must stay on one line."""


def short(digest: str) -> str:
    """Return the start of a digest; the whole digest is in the list at the page's end."""
    return short_digest(digest).removeprefix("sha256:")


def evidence_of(tier: Tier, field: str) -> Evidence:
    """Return the evidence of a tier's field; raise `NotMeasuredError` if the table has none."""
    if (evidence := tier.evidence_for(field)) is not None:
        return evidence
    raise NotMeasuredError(
        f"{tier.id}.{field} has no evidence in the table, and a page shows no number without;"
        " `python -m calibrate merge` has to name its record"
    )


def mark_of(tier: Tier, field: str) -> str:
    """Return the mark of a tier's field; "" if policy decided it."""
    return MARKS.get(evidence_of(tier, field).kind, "")


def marked(text: str, mark: str) -> str:
    """A value with its mark, on one line."""
    return f"{text}{GAP}{mark}" if mark else text


def cited(tier: Tier, fields: Iterable[str]) -> str:
    """Return the kinds and records behind fields of a tier, strongest first, as a cell of a table."""
    return "<br>".join(_ranked((one.kind, one.record) for one in _known(tier, fields))) or "—"


def sources_of(tier: Tier, fields: Iterable[str]) -> str:
    """Return the kinds of evidence behind fields of a tier, strongest first; a measured one with its record."""
    return " ".join(_ranked((one.kind, _measured_record(one)) for one in _known(tier, fields))) or "—"


def source_mark(evidence: Evidence | None) -> str:
    """Return the mark of evidence, followed by its record if it was measured; "" without a mark."""
    if evidence is None or evidence.kind not in MARKS:
        return ""
    return _sourced(evidence.kind, _measured_record(evidence))


def _known(tier: Tier, fields: Iterable[str]) -> Iterator[Evidence]:
    return (evidence for field in fields if (evidence := evidence_of(tier, field)).kind in MARKS)


def _measured_record(evidence: Evidence) -> str:
    return evidence.record if evidence.kind is EvidenceKind.MEASURED else ""


def _ranked(found: Iterable[tuple[EvidenceKind, str]]) -> list[str]:
    kinds = list(MARKS)
    return [
        _sourced(kind, record) for kind, record in sorted(set(found), key=lambda one: (kinds.index(one[0]), one[1]))
    ]


def _sourced(kind: EvidenceKind, record: str) -> str:
    return f"{MARKS[kind]}{GAP}`{short(record)}`" if record else MARKS[kind]
