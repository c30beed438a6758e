"""The simulated card of a scenario keeps the largest amount of each stage, whichever pass took it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.units import GIB, MIB
from ci.scenarios.card_book import CardBook
from ci.scenarios.scenario import BETWEEN


@pytest.mark.parametrize("passes", [(8, 3, 2), (3, 8, 2), (2, 3, 8)])
def test_the_peak_of_a_stage_is_that_of_its_largest_pass(passes: tuple[int, ...]) -> None:
    book = CardBook(GIB)
    for size in passes:
        book.begin_stage("denoise")
        book.free(book.alloc(size * MIB, "activations"))
        book.end_stage()
    assert book.take()[0]["denoise"] == {"activations": 8 * MIB}
    assert not book.take()[0]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.sampled_from(["weights", "activations", "latents"]), st.integers(1, 9)),
            st.tuples(st.just("free"), st.integers(0, 9)),
            st.tuples(st.just("begin"), st.sampled_from(["encode", "denoise"])),
            st.tuples(st.just("end")),
        ),
        max_size=40,
    )
)
def test_each_stage_keeps_who_had_its_largest_amount(steps: list[tuple[Any, ...]]) -> None:
    book, stage = CardBook(GIB), BETWEEN
    held: dict[int, tuple[str, int]] = {}
    largest: dict[str, dict[str, int]] = {}
    for what, *about in steps:
        match what:
            case "take":
                owner, size = about
                held[book.alloc(size * MIB, owner)] = owner, size * MIB
            case "free" if held:
                block = list(held)[about[0] % len(held)]
                book.free(block)
                del held[block]
            case "begin":
                [stage] = about
                book.begin_stage(stage)
            case "end":
                stage = BETWEEN
                book.end_stage()
        if what in ("take", "begin") and sum(n for _, n in held.values()) > sum(largest.get(stage, {}).values()):
            largest[stage] = {}
            for owner, size in held.values():
                largest[stage][owner] = largest[stage].get(owner, 0) + size
    assert book.held_bytes == sum(size for _, size in held.values())
    assert book.take()[0] == largest
    assert not book.take()[0]
