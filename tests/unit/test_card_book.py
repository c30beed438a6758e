"""The simulated card of a scenario keeps the largest amount of each stage, whichever pass took it."""

import pytest

from acestep.units import GIB, MIB
from ci.scenarios.card_book import CardBook


@pytest.mark.parametrize("passes", [(8, 3, 2), (3, 8, 2), (2, 3, 8)])
def test_the_peak_of_a_stage_is_that_of_its_largest_pass(passes: tuple[int, ...]) -> None:
    book = CardBook(GIB)
    for size in passes:
        book.begin_stage("denoise")
        book.free(book.alloc(size * MIB, "activations"))
        book.end_stage()
    assert book.take()[0]["denoise"] == {"activations": 8 * MIB}
    assert not book.take()[0]
