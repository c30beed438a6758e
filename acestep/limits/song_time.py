"""How long songs take under a plan: the table's seconds for typical cards, corrected by the user's own runs. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from acestep.evidence import EvidenceKind
from acestep.hardware.card import CardKind
from acestep.hardware.card_chips import is_same_card
from acestep.knobs import STREAMING
from acestep.limits.capabilities import computes_in_float32
from acestep.limits.plan import Plan
from acestep.song_times import FASTEST, LENGTHS_S, SLOWEST, CardTimes, OtherWay, ThinkTime, TierTimes, at_length
from acestep.stage import Stage

UNLIKE_OWN_RUNS: Final = 1.25
"""How far a song of another length may be off a corrected time: BENCHMARK.md shows the errors between lengths."""

NOT_RANKED: Final = 0.8
"""Choices that differ by less than 20 % are not ranked: the estimates are not better than that."""

OwnRatios = Mapping[Stage, Sequence[float]]
"""The seconds of the user's own runs over the table's, by stage."""

NO_RUNS: Final[OwnRatios] = {}
"""Nothing was timed here."""


class TimeRange(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest and the longest likely time in seconds."""

    least_s: float
    most_s: float


class SongTimeRange(msgspec.Struct, frozen=True, kw_only=True):
    """How long one song of a length takes, without a language model and with the plan's; None where it has none."""

    duration_s: int
    without_lm: TimeRange
    with_lm: TimeRange | None


class ComparedChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Another choice than the plan's: how many times as long it takes, or None where the difference is too small.

    Choices of one `kind` with small differences are told by `bus_bytes`, the bytes between host and card.
    """

    kind: str
    choice: str
    knobs: dict[str, str | None]
    times_as_long: float | None
    bus_bytes: int | None = None

    @property
    def is_faster(self) -> bool:
        """Whether it is faster than the plan's choice by enough to be ranked."""
        return self.times_as_long is not None and self.times_as_long < 1


class PlannedTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a plan: on its own card where own runs or the table tell its speed, else on the `cards` of its tier.

    `evidence` is `measured` where every stage is corrected by own runs, else `estimated`.
    """

    evidence: EvidenceKind
    evidence_with_lm: EvidenceKind
    cards: tuple[str, ...]
    songs: tuple[SongTimeRange, ...]
    choices: tuple[ComparedChoice, ...]


def planned_times(plan: Plan, known: Mapping[str, TierTimes], own: OwnRatios = NO_RUNS) -> PlannedTimes | None:
    """Return how long songs of both lengths take; None for a card or settings that nothing is known about."""
    tier = times_of(plan, known)
    cards = cards_of(plan, tier)
    if own and cards:
        cards = (base_of(cards),)
    if tier is None or not cards or (not _is_estimated(plan) and not _covers(own, cards[0].stages)):
        return None
    thinks = [(card, thought) for card in cards if (thought := thinking_of(plan, card)) is not None]
    measured = _covers(own, cards[0].stages)
    return PlannedTimes(
        evidence=EvidenceKind.MEASURED if measured else EvidenceKind.ESTIMATED,
        evidence_with_lm=EvidenceKind.MEASURED if measured and Stage.THINK in own else EvidenceKind.ESTIMATED,
        cards=(plan.card.name,) if measured else tuple(card.card for card in cards),
        songs=tuple(
            SongTimeRange(
                duration_s=length,
                without_lm=_spanned([_ranged(stages_at(card, length), own) for card in cards]),
                with_lm=_spanned([_ranged(stages_at(card, length, thought), own) for card, thought in thinks])
                if thinks
                else None,
            )
            for length in LENGTHS_S
        ),
        choices=(*_models(plan, cards), *_ways(plan, tier.ways)),
    )


def times_of(plan: Plan, known: Mapping[str, TierTimes]) -> TierTimes | None:
    """Return the times of the plan's tier."""
    return known.get(plan.tier)


def cards_of(plan: Plan, tier: TierTimes | None) -> tuple[CardTimes, ...]:
    """Return the times of the plan's card, or of all typical cards of its tier, under settings like the plan's."""
    if tier is None:
        return ()
    if not _is_estimated(plan):
        return tier.cards
    named = tuple(card for card in tier.cards if is_own_card(plan, card))
    # Other offload changes little; where weights are unpacked or streamed, the times are of something else.
    streams = plan.offload in STREAMING
    return tuple(
        card
        for card in named or typical_cards(tier)
        if card.quantization == plan.quantization and (card.offload in STREAMING) is streams
    )


def _is_estimated(plan: Plan) -> bool:
    """Whether the table's times are of such cards: NVIDIA's from Ampere on. Others only have the user's own runs."""
    return plan.card.kind is CardKind.CUDA and not computes_in_float32(plan.card)


def is_own_card(plan: Plan, card: CardTimes) -> bool:
    """Return whether times are those of the plan's own card: of its chip, form and size."""
    return is_same_card(card.card, card.vram_gib, plan.card.name, plan.card.nameplate_gib)


def typical_cards(tier: TierTimes) -> tuple[CardTimes, ...]:
    """Return the cards whose range is a tier's: the typical ones, or all where none is."""
    return tuple(card for card in tier.cards if card.typical) or tier.cards


def base_of(cards: Sequence[CardTimes]) -> CardTimes:
    """Return the times that own runs are compared with: those of the card, or the mean of all where it is not known."""
    if len(cards) == 1:
        return cards[0]
    first = cards[0]
    stages = {stage: _mean([card.stages[stage] for card in cards if stage in card.stages]) for stage in first.stages}
    thinking = tuple(
        msgspec.structs.replace(
            thought, seconds=_mean([t.seconds for card in cards for t in card.thinking if _alike(t, thought)])
        )
        for thought in first.thinking
    )
    names = " and ".join(card.card for card in cards)
    return msgspec.structs.replace(first, card=names, vram_gib=None, stages=stages, thinking=thinking)


def thinking_of(plan: Plan, card: CardTimes) -> ThinkTime | None:
    """Return the time of the plan's language model on a card; None without one."""
    wished = plan.lm, plan.backend, plan.lm_quantization
    return next((t for t in card.thinking if (t.lm, t.backend, t.lm_quantization) == wished), None)


def stages_at(card: CardTimes, duration_s: float, thought: ThinkTime | None = None) -> dict[Stage, float]:
    """Return the likely seconds of each stage of one song of a length."""
    seconds = {stage: at_length(both, duration_s) for stage, both in card.stages.items()}
    return seconds if thought is None else {Stage.THINK: at_length(thought.seconds, duration_s), **seconds}


def _covers(own: OwnRatios, stages: Mapping[Stage, object]) -> bool:
    return all(own.get(stage) for stage in stages)


def _ranged(seconds: Mapping[Stage, float], own: OwnRatios) -> TimeRange:
    least = most = 0.0
    for stage, likely in seconds.items():
        ratios = sorted(own.get(stage, ()))
        # The middle one leaves out a run beside other programs.
        middle = ratios[len(ratios) // 2] if ratios else None
        least += likely * (FASTEST if middle is None else middle / UNLIKE_OWN_RUNS)
        most += likely * (SLOWEST if middle is None else middle * UNLIKE_OWN_RUNS)
    return TimeRange(least_s=round(least, 2), most_s=round(most, 2))


def _spanned(ranges: Sequence[TimeRange]) -> TimeRange:
    return TimeRange(least_s=min(r.least_s for r in ranges), most_s=max(r.most_s for r in ranges))


def _mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    short, long = (sum(column) / len(values) for column in zip(*values, strict=True))
    return short, long


def _alike(one: ThinkTime, other: ThinkTime) -> bool:
    return (one.lm, one.backend, one.lm_quantization) == (other.lm, other.backend, other.lm_quantization)


def _models(plan: Plan, cards: Sequence[CardTimes]) -> Iterator[ComparedChoice]:
    """Yield each other language model and backend, by the time of thinking about the longer song."""
    of_plan = [thinking_of(plan, card) for card in cards]
    for other in cards[0].thinking:
        if of_plan[0] is None or _alike(other, of_plan[0]):
            continue
        ratios = [
            t.seconds[-1] / mine.seconds[-1]
            for card, mine in zip(cards, of_plan, strict=True)
            for t in card.thinking
            if mine is not None and _alike(t, other)
        ]
        weights = f" in {other.lm_quantization}" if other.lm_quantization else ""
        choice = f"{other.lm}{weights} on {other.backend}"
        yield ComparedChoice(
            kind="thinking",
            choice=choice,
            knobs={"lm": other.lm, "backend": other.backend, "lm_quantization": other.lm_quantization},
            times_as_long=_ranked(min(ratios), max(ratios)),
        )


def _ways(plan: Plan, ways: Sequence[OtherWay]) -> Iterator[ComparedChoice]:
    """Yield each other offload and quantization that fits, by the time of the longer song without thinking."""
    own = next((way for way in ways if (way.offload, way.quantization) == (plan.offload, plan.quantization)), None)
    if own is None or own.times_as_long != (1.0, 1.0):
        return
    for way in sorted(ways, key=lambda way: way.bus_bytes):
        if way is own:
            continue
        weights = way.quantization or "unquantized"
        yield ComparedChoice(
            kind="song",
            choice=f"offload {way.offload}, {weights}",
            knobs={"offload": way.offload, "quantization": way.quantization},
            times_as_long=_ranked(*way.times_as_long),
            bus_bytes=way.bus_bytes,
        )


def _ranked(least: float, most: float) -> float | None:
    """Return the ratio nearest to 1, or None where any card's is too near to it."""
    if most <= NOT_RANKED:
        return round(most, 2)
    return round(least, 2) if least >= 1 / NOT_RANKED else None
