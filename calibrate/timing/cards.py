"""The speeds of cards, from their published specifications."""

from functools import cache
from pathlib import Path
from typing import Annotated, Final

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card_sizes import card_model, sizes_in

CARDS: Final = Path(__file__).with_name("cards.json")

LAUNCH_S: Final = 6e-6
"""Time from the start of one kernel to the next."""

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class CardSpeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One card: its size, its compute capability and its peaks.

    `tflops` is the peak of dense matrix products in the type that songs are computed in: bfloat16 with sums in float32,
    and float32 before Ampere. On GeForce cards since Ampere it is twice the published float32 rate (71.2 for the 35.6
    of a 3090). `memory_gbs` and `bus_gbs` are in 10^9 bytes a second, the bus in one direction. A `typical` card is one
    that people make songs on at home.
    """

    name: str
    vram_gib: _Positive
    capability: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d$")]
    tflops: _Positive
    memory_gbs: _Positive
    bus_gbs: _Positive
    source: str
    launch_s: _Positive = LAUNCH_S
    typical: bool = True

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The capability as numbers."""
        major, minor = self.capability.split(".")
        return int(major), int(minor)


@cache
def known_cards() -> tuple[CardSpeed, ...]:
    """All cards whose speeds are known, by generation."""
    return msgspec.json.decode(CARDS.read_bytes(), type=tuple[CardSpeed, ...])


def card_speed(name: str) -> CardSpeed:
    """Return the card of a name, whatever its case, maker and form; of several sizes, the one that is named.

    Without a size it is the card whose own name has none, else the first.
    Raises `UsageError` with the known names for another one.
    """
    model, _ = card_model(name)
    alike = [card for card in known_cards() if card_model(card.name)[0] == model]
    if sizes := sizes_in(name):
        alike = [card for card in alike if round(card.vram_gib) in sizes]
    for card in (*(card for card in alike if not sizes_in(card.name)), *alike):
        return card
    known = ", ".join(card.name for card in known_cards())
    raise UsageError(
        f"the speed of {name!r} is not known; known cards are {known}. For another card, write"
        " `acestep doctor --measure --json > card.json` there, and give that file"
    )
