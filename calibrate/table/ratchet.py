"""Which row of a tier decides: one measured card lowers a promise, two that promise as much may raise it. Pure."""

from collections.abc import Collection, Sequence

from acestep.errors import NotMeasuredError
from acestep.evidence import EvidenceKind
from acestep.knobs import LM_MODELS
from acestep.tiers import BATCHES
from calibrate.record.meaning import catalogued_model
from calibrate.table.proven import ProvenTier

INDEPENDENT = 2
"""Models of card that it takes to promise more than the simulation does."""


def deciding(rows: Sequence[ProvenTier], *, trusted: Collection[str] = ()) -> ProvenTier:
    """Return the row that decides: the most careful one of the strongest evidence, if the simulation allows it.

    Where it promises more than the simulation, and fewer than `INDEPENDENT` cards promise as much, the simulation
    decides, unless the digest of its record is `trusted`: a maintainer answers for it. Raises `NotMeasuredError` where
    a record then shows that the simulation promises too much.
    """
    first = min(rows, key=lambda row: row.rank)
    simulated = [row for row in rows if row.record.evidence is EvidenceKind.SIMULATED]
    if first in simulated or not simulated:
        return first
    floor = min(simulated, key=lambda row: row.rank)
    enough = first.record.digest in trusted or len(_agreeing(rows, first)) >= INDEPENDENT
    if enough or not _raises(first, floor):
        return first
    for row in rows:
        if row not in simulated and _refutes(row, floor):
            raise NotMeasuredError(
                f"{first.decided.id} of {first.choice.knobs.variant}: the record {first.record.digest} of"
                f" {first.record.card.name} promises more than the simulation, fewer than {INDEPENDENT} different cards"
                f" promise as much, and the record {row.record.digest} of {row.record.card.name} shows that what the"
                " simulation promises does not fit; a record of another card has to decide"
            )
    return floor


def _agreeing(rows: Sequence[ProvenTier], first: ProvenTier) -> set[tuple[str, int]]:
    """The models of known cards that were measured and promise as much as a row; cards of one model count once."""
    agreeing = [row for row in rows if row.record.evidence is EvidenceKind.MEASURED and _as_much(row, first)]
    return {model for row in agreeing if (model := catalogued_model(row.record.card)) is not None}


def _as_much(row: ProvenTier, first: ProvenTier) -> bool:
    """Return whether a row promises as much as another everywhere, with knobs that are as comfortable."""
    promised = zip(_promises(row), _promises(first), strict=True)
    return row.choice.rung <= first.choice.rung and all(has >= wanted for has, wanted in promised)


def _raises(row: ProvenTier, floor: ProvenTier) -> bool:
    """Return whether a row promises more anywhere; a more frugal rung is another promise, which is lower."""
    if row.choice.rung != floor.choice.rung:
        return row.choice.rung < floor.choice.rung
    return any(more > less for more, less in zip(_promises(row), _promises(floor), strict=True))


def _refutes(row: ProvenTier, floor: ProvenTier) -> bool:
    """Return whether a row's record shows that what the simulation promises does not fit."""
    knobs, lm, frontier = floor.choice.knobs, floor.choice.lm, floor.choice.frontier
    used = {knobs, *(lm.knobs(knobs, model, backend) for model in lm.models for backend in lm.backends)}
    return any(
        row.record.longest(certificate) < frontier.longest(certificate.batch, lm=certificate.knobs.lm is not None)
        for certificate in row.record.certificates
        if certificate.cap_bytes == floor.cap_bytes and certificate.knobs in used and certificate.batch in BATCHES
    )


def _promises(row: ProvenTier) -> list[int]:
    frontier, lm = row.choice.frontier, row.choice.lm
    reached = [frontier.longest(batch, lm=thinks) for thinks in (False, True) for batch in BATCHES]
    offered = [row.fewest_planned(model)[0] if model in lm.models else 0 for model in LM_MODELS]
    return [*reached, *offered, int(bool(lm.models) and lm.quantization is None)]
