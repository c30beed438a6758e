"""The kinds of card that a campaign names: which card is of a kind, and how a kind is simulated. Pure."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card import Card
from acestep.hardware.card_sizes import card_model, catalogued
from acestep.hardware.detection.families import capability_of
from acestep.limits.capabilities import AMPERE
from calibrate.probes.base import SIMULATED_CARD

_SHORT_SIZE: Final = re.compile(r"\b(\d+)g\b")
"""The unit of a size in Ray's names of accelerators, such as A100-80G."""

_FAMILIES: Final = ("", " ada", " blackwell")
"""Words at the end of a card's name that Ray leaves out: it calls the RTX 6000 Ada Generation RTX-6000."""


def identity_of(card: Card) -> str:
    """Return an identity that two cards share only if their answers are interchangeable in a journal."""
    capability = ".".join(map(str, card.capability))
    return f"{card.name}, capability {capability}, {card.total_bytes} bytes, driver {card.driver or 'none'}"


def is_of_kind(card: Card, kind: str) -> bool:
    """Return whether a card is of the model that a name says, and of the size if the name says one."""
    size = re.search(r"(\d+) ?gb\b", spelled(kind))
    return card_model(card.name)[0] in _models_of(kind) and (size is None or int(size[1]) == card.nameplate_gib)


def kinds_of(cards: Sequence[Card]) -> dict[str, list[Card]]:
    """Return cards by the names of their kinds: the model, with its size in GB if cards of one model differ in it."""
    models: dict[str, list[Card]] = {}
    for card in cards:
        models.setdefault(card_model(card.name)[0].upper().replace(" ", "-") or "CARD", []).append(card)
    found: dict[str, list[Card]] = {}
    for model, alike in models.items():
        several = len({card.nameplate_gib for card in alike}) > 1
        for card in alike:
            found.setdefault(f"{model}-{card.nameplate_gib:g}G" if several else model, []).append(card)
    return found


def one_name_each(kinds: Sequence[str], recognised: str = "") -> list[str]:
    """Return the kinds that one node names without second names of one model.

    Kept is a declared name rather than the one that Ray `recognised`, and a shorter one otherwise.
    """
    kept: list[str] = []
    for kind in sorted(kinds, key=lambda kind: (kind == recognised, len(kind), kind)):
        if not any(_models_of(kind) & _models_of(other) for other in kept):
            kept.append(kind)
    return sorted(kept)


def simulated_as(kind: str) -> Card:
    """The simulated card with the kernels of a kind.

    Raises `UsageError` for a name that the catalogue does not have, and for cards that compute in float32, of which no
    table is made.
    """
    name = next((f"{spelled(kind)}{family}" for family in _FAMILIES if catalogued(f"{spelled(kind)}{family}")), "")
    if not name:
        raise UsageError(f"{kind} is no card that is known; write it as the maker does, such as H100, L4 or RTX 4090")
    capability = capability_of(name)
    if capability < AMPERE:
        raise UsageError(
            f"{kind} has no bfloat16 and computes in float32, where everything takes twice as much; its plan is that"
            " of a card of half its size, so there is nothing to measure"
        )
    return msgspec.structs.replace(SIMULATED_CARD, capability=capability)


def spelled(kind: str) -> str:
    """A kind with spaces between its words and its size in GB, as names of cards have them."""
    return _SHORT_SIZE.sub(r"\1gb", re.sub(r"[-_]+", " ", kind.lower()))


def _models_of(kind: str) -> set[str]:
    """The models that a kind may name."""
    return {f"{card_model(spelled(kind))[0]}{family}" for family in _FAMILIES}
