"""How long songs take, as text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from acestep.evidence import EvidenceKind
from acestep.limits.plan import Plan
from acestep.limits.song_time import ComparedChoice, PlannedTimes, TimeRange, typical_cards
from acestep.song_times import FASTEST, LENGTHS_S, SLOWEST, TierTimes, song_seconds
from acestep.tiers import Tier
from acestep.units import duration_range, minutes

_GB = 10**9


def plan_time_rows(plan: Plan, times: PlannedTimes | None) -> Iterator[tuple[str, str]]:
    """Yield how long a short and a long song take, and which other choices are faster or slower."""
    if times is None:
        yield "time", "not known for this card and these settings"
        return
    name = "time"
    for song in times.songs:
        said = f"{minutes(song.duration_s)} of music takes {_said(song.without_lm)} without thinking ({times.evidence})"
        if song.with_lm is not None:
            said += f", {_said(song.with_lm)} with {plan.lm} on {plan.backend} ({times.evidence_with_lm})"
        yield name, said
        name = ""
    timed = "your own runs" if times.evidence is EvidenceKind.MEASURED else "published speeds, not from a run"
    yield "", f"from {timed}, for {', '.join(times.cards)}, with the weights loaded and long lyrics"
    for kind, own in _own_choices(plan):
        yield from _compared([choice for choice in times.choices if choice.kind == kind], own)


def _compared(choices: Sequence[ComparedChoice], own: str) -> Iterator[tuple[str, str]]:
    for choice in choices:
        if choice.times_as_long is not None:
            yield "", f"{choice.choice}: {choice.times_as_long:g} times the time of {own}"
    equal = [choice for choice in choices if choice.times_as_long is None]
    if equal:
        yield "", f"about as fast as {own}: {', '.join(map(_moved, equal))}"


def faster_lines(plans: Iterable[tuple[Plan, PlannedTimes | None]]) -> Iterator[str]:
    """Yield a line for each tier's plan with other choices that are faster than its own."""
    for plan, times in plans:
        faster = [choice for choice in (times.choices if times is not None else ()) if choice.is_faster]
        for kind, own in _own_choices(plan):
            if told := ", ".join(f"{c.choice} in {c.times_as_long:g} times" for c in faster if c.kind == kind):
                yield f"{plan.tier}: faster than {own}: {told} the time (estimated)"


def _own_choices(plan: Plan) -> tuple[tuple[str, str], ...]:
    return ("thinking", f"{plan.lm} on {plan.backend}"), ("song", f"offload {plan.offload}")


def _moved(choice: ComparedChoice) -> str:
    if choice.bus_bytes is None:
        return choice.choice
    return f"{choice.choice} ({choice.bus_bytes / _GB:.1f} GB over the bus)"


def _said(time: TimeRange) -> str:
    return duration_range(time.least_s, time.most_s)


NO_USUAL_CARD = "no usual card has this size"


def tier_time(tier: Tier, known: Mapping[str, TierTimes]) -> str:
    """Return how long the longer song takes on typical cards of a tier, with its language model and without.

    `known` are the times of all tiers that have a card.
    """
    if tier.id not in known:
        return NO_USUAL_CARD if known else "—"
    cards, length = typical_cards(known[tier.id]), LENGTHS_S[-1]
    without = [song_seconds(card, length) for card in cards]
    with_lm = (
        [song_seconds(card, length, tier.recommended_lm, tier.backend) for card in cards] if tier.lm_models else []
    )
    sides = [[seconds for seconds in side if seconds is not None] for side in (with_lm, without)]
    return " / ".join(duration_range(FASTEST * min(side), SLOWEST * max(side)) if side else "—" for side in sides)
