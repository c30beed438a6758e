"""A wish with a size means only cards of that size."""

import re
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.choose import choose
from acestep.units import gib_to_bytes
from calibrate.timing.cards import CardSpeed, known_cards

SEVERAL = st.lists(st.sampled_from(known_cards()), min_size=1, max_size=4, unique=True)
SIZES = st.sampled_from(sorted({card.vram_gib for card in known_cards()}))


def without_size(name: str) -> str:
    return re.sub(r" ?\d+GB", "", name)


@given(SEVERAL, SIZES, st.booleans(), st.data())
def test_a_card_of_another_size_than_the_wish_says_is_never_taken(
    known: list[CardSpeed], size: float, sized: bool, data: st.DataObject
) -> None:
    """Whether drivers write the size into the names or not, and whether a card of that size is there or not."""
    cards = {
        speed.name: Card(
            kind=CardKind.CUDA,
            name=f"NVIDIA {speed.name if sized else without_size(speed.name)}",
            uuid=f"GPU-{number}",
            total_bytes=gib_to_bytes(speed.vram_gib),
        )
        for number, speed in enumerate(known)
    }
    here = tuple(cards.values())
    wished = data.draw(st.sampled_from(known))
    name = without_size(wished.name)
    assert choose(here, f"{name} {wished.vram_gib:g}GB") == cards[wished.name]
    with suppress(UsageError):
        assert choose(here, f"{name} {size:g} gb").nameplate_gib == size
