"""Evidence as a page shows it: one mark for each kind, and the start of a record's digest."""

from collections.abc import Iterable

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
    found = {(evidence.kind, evidence.record) for field in fields if (evidence := evidence_of(tier, field))}
    kinds = list(MARKS)
    ranked = sorted((kinds.index(kind), record) for kind, record in found if kind in MARKS)
    cells = (f"{MARKS[kinds[rank]]}{GAP}`{short(record)}`" if record else MARKS[kinds[rank]] for rank, record in ranked)
    return "<br>".join(cells) or "—"
