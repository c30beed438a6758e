"""Which of several cards is used: the requested one, otherwise the one with most memory. Pure."""

from collections.abc import Callable, Sequence
from typing import Final

from acestep.errors import UsageError
from acestep.hardware.card import CPU, Card, CardKind
from acestep.hardware.card_chips import chip_of
from acestep.hardware.card_sizes import card_model, sizes_in
from acestep.hardware.detection.answers import named
from acestep.hardware.detection.torch_cards import identity

DEVICE_VARIABLE: Final = "ACESTEP_DEVICE"
"""The environment variable for `--device`."""

LM_DEVICE_VARIABLE: Final = "ACESTEP_LM_DEVICE"
"""The environment variable for `--lm-device`."""

AUTOMATIC_DEVICE: Final = "auto"
"""A wish for the usual card."""

_KINDS: Final = {
    "cuda": (CardKind.CUDA, CardKind.ROCM),
    "rocm": (CardKind.ROCM,),
    "hip": (CardKind.ROCM,),
    "xpu": (CardKind.XPU,),
    "mps": (CardKind.MPS,),
}
"""The kinds of card that a name of torch's means; torch calls AMD's cards cuda, too."""

_SHORTEST_UUID: Final = 4
"""Digits of a UUID without its prefix; fewer are rather a part of a name."""

_LONGEST_INDEX: Final = 2
"""Digits of a number in the list. A longer one, such as 3060, is a part of a name."""


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

    Names of torch are understood too: ``cuda:1`` is number 1, ``cuda`` the usual card of its kind, and ``cpu`` the CPU.
    Without a wish, or with ``auto``, it is the card with most memory, the first of several equal ones; one that shares
    the machine's memory is part of a processor, and slow, so one with memory of its own is preferred. The CPU if there
    is no card. Raises `UsageError` for a wish that fits no card, or several.
    """
    wish = (wish or "").strip()
    lowered = wish.lower()
    if lowered in ("", AUTOMATIC_DEVICE):
        return _usual(cards) or CPU
    if lowered in (CPU.kind, f"{CPU.kind}:0"):
        return CPU
    fitting = _fitting(cards, lowered)
    if len(fitting) == 1:
        return fitting[0]
    named_by = f"{option} {wish!r} (or {variable} in the environment) names"
    if not cards:
        raise UsageError(f"{named_by} no card; none is here that could be chosen, and cpu is the processor")
    listed = "; ".join(f"{index}: {named(card)}" for index, card in enumerate(cards))
    raise UsageError(
        f"{named_by} {'several cards' if fitting else 'no card'}; give a number, a UUID or a name of one of these:"
        f" {listed}"
    )


def _usual(cards: Sequence[Card]) -> Card | None:
    return max(cards, key=lambda card: (not card.unified, card.total_bytes), default=None)


def _fitting(cards: Sequence[Card], wish: str) -> list[Card]:
    """The cards that a wish in lower case may mean."""
    kind, colon, number = wish.rpartition(":")
    if number.isdecimal() and len(number) <= _LONGEST_INDEX and (not colon or kind in _KINDS):
        chosen = [card for index, card in enumerate(cards) if index == int(number)]
        return [card for card in chosen if not colon or card.kind in _KINDS[kind]]
    if wish in _KINDS:
        usual = _usual([card for card in cards if card.kind in _KINDS[wish]])
        return [] if usual is None else [usual]
    tests: tuple[Callable[[Card], bool], ...] = (
        lambda card: wish in (card.uuid.lower(), card.name.lower()),
        lambda card: card.uuid.lower().startswith(wish),
        lambda card: chip_of(card.name) == chip_of(wish) and _has_size(wish, card),
        lambda card: card_model(card.name) == card_model(wish) and _has_size(wish, card),
        lambda card: wish in card.name.lower(),
        lambda card: _begins_uuid(wish, card.uuid),
    )
    return next((found for test in tests if (found := [card for card in cards if test(card)])), [])


def _has_size(wish: str, card: Card) -> bool:
    """Return whether a card has the size that a wish says; chip and model are compared without it."""
    sizes = sizes_in(wish)
    return not sizes or round(card.nameplate_gib) in sizes


def _begins_uuid(wish: str, uuid: str) -> bool:
    """Return whether a wish is the beginning of a UUID without the prefix, or with that of another program."""
    beginning = identity(wish.removeprefix("0x"))
    return len(beginning) >= _SHORTEST_UUID and identity(uuid).startswith(beginning)


def others(card: Card, cards: Sequence[Card]) -> list[str]:
    """Return a sentence about the unused cards and how to choose one; none if the CPU was requested."""
    unused = [f"{named(other)} as --device {index}" for index, other in enumerate(cards) if other != card]
    if not unused or card is CPU:
        return []
    return [
        f"Of several cards {named(card)} is chosen; the others here: {'; '.join(unused)} (or {DEVICE_VARIABLE} in the"
        " environment)."
    ]
