"""Evidence as a page shows it: one mark a kind, and the start of a record's digest."""

from collections.abc import Iterable

from acestep.errors import NotMeasuredError
from acestep.tiers import Evidence, Tier

MARKS = {"measured": "●", "simulated": "◐", "estimated": "○"}
"""A mark for each kind of evidence, the strongest first. What policy decided has none."""

GAP = "\N{NO-BREAK SPACE}"
"""Between a value and its mark, which belong on one line."""

DIGEST_CHARACTERS = 12
"""Hexadecimal characters that tell records apart on a page; the whole digest is in the list at its end."""


def short(digest: str) -> str:
    """The start of a digest, without the name of its algorithm."""
    return digest.removeprefix("sha256:")[:DIGEST_CHARACTERS]


def evidence_of(tier: Tier, field: str) -> Evidence:
    """What a field of a tier rests on; `NotMeasuredError` where the table does not say."""
    if field not in tier.evidence:
        raise NotMeasuredError(
            f"{tier.id}.{field} has no evidence in the table, and a page shows no number without;"
            " `python -m calibrate merge` has to name its record"
        )
    return tier.evidence[field]


def marked(text: str, tier: Tier, field: str) -> str:
    """A value of a tier with the mark of its field; without one where policy decided it."""
    mark = MARKS.get(evidence_of(tier, field).kind)
    return f"{text}{GAP}{mark}" if mark else text


def cited(tier: Tier, fields: Iterable[str]) -> str:
    """The kinds and records that fields of a tier rest on, strongest first, as a cell of a table."""
    found = {(evidence.kind, evidence.record) for field in fields if (evidence := evidence_of(tier, field))}
    kinds = list(MARKS)
    ranked = sorted((kinds.index(kind), record) for kind, record in found if kind in MARKS)
    cells = (f"{MARKS[kinds[rank]]}{GAP}`{short(record)}`" if record else MARKS[kinds[rank]] for rank, record in ranked)
    return "<br>".join(cells) or "—"
