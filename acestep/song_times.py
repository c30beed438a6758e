"""How long songs take on typical cards: the estimated seconds that the tier table holds for each tier."""

from typing import Annotated, Final

import msgspec

from acestep.evidence import Evidence
from acestep.knobs import Backend, Offload, Quantization
from acestep.stage import Stage

LENGTHS_S: Final = (60, 240)
"""The lengths of song that times are given for: a short one, and one as long as most."""

FASTEST: Final = 0.75
SLOWEST: Final = 1.4
"""The range around an estimate: clocks, drivers and other programs differ. BENCHMARK.md compares it with timings."""

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]

BothLengths = tuple[NotNegative, NotNegative]
"""Seconds for each of `LENGTHS_S`."""


def at_length(both: BothLengths, duration_s: float) -> float:
    """Return the seconds for a song of another length, on the line through both; never below 0."""
    (first, last), (short, long) = LENGTHS_S, both
    return max(0.0, short + (long - short) * (duration_s - first) / (last - first))


class ThinkTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The likely seconds in which a language model plans one song and writes its codes."""

    lm: str
    backend: Backend
    lm_quantization: Quantization | None
    seconds: BothLengths


class CardTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The likely seconds of one song on a card, by stage, with the `offload` and `quantization` that it plans.

    The range of a tier is that of its `typical` cards; the others are there for those who have one. `vram_gib` is the
    size on its box, which cards of one name may differ in; None in older tables.
    """

    card: str
    vram_gib: Positive | None = None
    typical: bool
    offload: Offload
    quantization: Quantization | None
    stages: dict[Stage, BothLengths]
    thinking: tuple[ThinkTime, ...]


class OtherWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One offload and quantization that fits a tier: bytes over the bus for the longer song, and its relative time.

    `times_as_long` is relative to the tier's own, on the card where it is least and where it is most.
    """

    offload: Offload
    quantization: Quantization | None
    times_as_long: tuple[NotNegative, NotNegative]
    bus_bytes: Annotated[int, msgspec.Meta(ge=0)]


def song_seconds(
    card: CardTimes, duration_s: float, lm: str | None = None, backend: Backend = Backend.PT
) -> float | None:
    """Return the likely seconds of one song of a length, planned by a language model or not; None if it has no time."""
    seconds = sum(at_length(both, duration_s) for both in card.stages.values())
    if lm is None:
        return seconds
    thought = next((time for time in card.thinking if (time.lm, time.backend) == (lm, backend)), None)
    return None if thought is None else seconds + at_length(thought.seconds, duration_s)


class TierTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long songs take on typical cards of a tier, eagerly and without loading the weights.

    `made_from` is a digest of all that the numbers follow from: the record, the plans and the speeds of the cards.
    """

    evidence: Evidence
    made_from: str
    cards: tuple[CardTimes, ...]
    ways: tuple[OtherWay, ...] = ()
