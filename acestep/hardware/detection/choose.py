"""Which of several cards is used: the requested one, otherwise the one with most memory. Pure."""

from collections.abc import Sequence
from typing import Final

from acestep.errors import UsageError
from acestep.hardware.card import CPU, Card
from acestep.hardware.detection.answers import named

DEVICE_VARIABLE: Final = "ACESTEP_DEVICE"
"""The environment variable for `--device`."""

LM_DEVICE_VARIABLE: Final = "ACESTEP_LM_DEVICE"
"""The environment variable for `--lm-device`."""

_KINDS: Final = ("cuda", "xpu", "mps")


def choose_for_lm(cards: Sequence[Card], songs: Card, wish: str | None) -> Card | None:
    """Return the card that a wish names for the language model; None if it is the card of the `songs`, or no wish.

    Raises `UsageError` as `choose` does.
    """
    card = choose(cards, wish, option="--lm-device", variable=LM_DEVICE_VARIABLE) if (wish or "").strip() else songs
    return None if card == songs else card


def choose(
    cards: Sequence[Card], wish: str | None = None, *, option: str = "--device", variable: str = DEVICE_VARIABLE
) -> Card:
    """Return the card that a wish names: its number in the list, a beginning of its UUID, or a part of its name.

    ``cpu`` is the CPU. Without a wish it is the card with most memory, the first of several equal ones; one that shares
    the machine's memory is part of a processor, and slow, so one with memory of its own is preferred. The CPU if there
    is no card. Raises `UsageError` for a wish that fits no card, or several.
    """
    wish = (wish or "").strip()
    if not wish:
        return max(cards, key=lambda card: (not card.unified, card.total_bytes), default=CPU)
    if wish.lower() == CPU.kind:
        return CPU
    fitting = _fitting(cards, wish)
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{index}: {named(card)}" for index, card in enumerate(cards)) or "none"
    how = "no card" if not fitting else "several cards"
    raise UsageError(
        f"{option} {wish} (or {variable} in the environment) names {how}; give a number, a UUID or a"
        f" name of one of these: {listed}"
    )


def _fitting(cards: Sequence[Card], wish: str) -> list[Card]:
    """The cards that a wish may mean; a number, as in torch's cuda:1 too, is an index if the list is long enough."""
    kind, _, number = wish.rpartition(":")
    if number.isdecimal() and len(number) < 5 and int(number) < len(cards) and kind in ("", *_KINDS):
        return [cards[int(number)]]
    lowered = wish.lower()
    exact = [card for card in cards if lowered in (card.uuid.lower(), card.name.lower())]
    by_uuid = [card for card in cards if card.uuid.lower().startswith(lowered)]
    return exact or by_uuid or [card for card in cards if lowered in card.name.lower()]


def others(card: Card, cards: Sequence[Card]) -> list[str]:
    """Return a sentence about the unused cards and how to choose one; none if the CPU was requested."""
    unused = [f"{named(other)} as --device {index}" for index, other in enumerate(cards) if other != card]
    if not unused or card is CPU:
        return []
    return [
        f"Of several cards {named(card)} is chosen; the others here: {'; '.join(unused)} (or {DEVICE_VARIABLE} in the"
        " environment)."
    ]
