"""NVML's answer: the cards CUDA would show, whatever some of the library's functions refuse."""

from typing import Any

import pytest

from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.nvml import ask_nvml
from acestep.units import GIB
from tests.fake_cards import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    IS_LOST,
    LIBRARY_NOT_FOUND,
    MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    Board,
    FakeNvml,
    Part,
)

SMALL, LARGE = Board(name="small", uuid="GPU-aaaa-1", gib=8), Board(name="large", uuid="GPU-bbbb-2", gib=24)
FAILING = ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo")


def answer(*boards: Board, visible: str | None = None, memory_gib: float = 120, **more: Any) -> Any:
    nvml = FakeNvml(boards, **more)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = ask_nvml(environ, nvml, memory_bytes=int(memory_gib * GIB))
    assert nvml.opened == 0
    return found


def test_a_card_carries_what_the_library_says_of_it() -> None:
    found = answer(SMALL)
    assert found.cards == (
        Card(
            kind=CardKind.CUDA,
            name="small",
            uuid="GPU-aaaa-1",
            total_bytes=8 * GIB,
            capability=(8, 9),
            driver="580.1",
        ),
    )
    assert found.driver_cuda == (13, 0)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("visible", "shown"), [(None, ["small", "large"]), ("1", ["large"]), ("GPU-bb", ["large"]), ("", []), ("-1", [])]
)
def test_what_the_environment_hides_is_told_apart(visible: str | None, shown: list[str]) -> None:
    found = answer(SMALL, LARGE, visible=visible)
    assert [card.name for card in found.cards] == shown
    assert {card.name for card in (*found.cards, *found.hidden)} == {"small", "large"}


@pytest.mark.parametrize("error", [IS_LOST, UNKNOWN])
@pytest.mark.parametrize("function", FAILING)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_board_that_is_lost_is_told_and_the_other_counts(function: str, error: int, lost: int) -> None:
    boards = [SMALL, LARGE]
    fine = boards[1 - lost]
    boards[lost] = Board(name="lost", uuid="GPU-cccc-3", gib=80, fails={function: error})
    found = answer(*boards)
    assert [card.name for card in found.cards] == [fine.name]
    (problem,) = found.problems
    assert problem.serious
    assert "does not answer" in problem.sentence
    assert problem.advice


def test_a_board_that_shares_the_main_memory_is_as_large_as_that() -> None:
    spark = Board(name="NVIDIA GB10", uuid="GPU-dddd-4", gib=0, fails={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})
    (card,) = answer(spark, memory_gib=119.6).cards
    assert card.unified
    assert card.total_bytes == int(119.6 * GIB)


@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND])
def test_a_size_that_is_refused_comes_from_the_name_where_that_says_one(error: int) -> None:
    board = Board(name="NVIDIA GeForce RTX 3060", uuid="GPU-1", gib=12, fails={"nvmlDeviceGetMemoryInfo": error})
    found = answer(board)
    assert not found.cards[0].unified
    assert 0 < found.cards[0].total_bytes <= 12 * GIB, "never more than the card may have"
    assert any("RTX 3060" in problem.sentence for problem in found.problems)


def test_a_size_that_is_refused_for_another_reason_is_not_the_main_memorys() -> None:
    board = Board(name="secret", uuid="GPU-1", gib=12, fails={"nvmlDeviceGetMemoryInfo": NO_PERMISSION})
    (card,) = answer(board).cards
    assert (card.total_bytes, card.unified) == (0, False)


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetMigMode"]
)
def test_a_function_that_an_old_driver_lacks_hides_no_card(function: str) -> None:
    board = Board(name="old", uuid="GPU-1", gib=8, fails={function: FUNCTION_NOT_FOUND})
    (card,) = answer(board).cards
    assert card.total_bytes == 8 * GIB
    assert card.capability >= (8, 0), "an unknown card is not held for one without bfloat16"


@pytest.mark.parametrize(
    ("error", "words", "serious"),
    [
        (LIBRARY_NOT_FOUND, "not installed", False),
        (DRIVER_NOT_LOADED, "no NVIDIA driver", False),
        (MISMATCH, "another version", True),
        (UNKNOWN, "gives no answer", True),
    ],
)
def test_a_library_that_does_not_start_says_why(error: int, words: str, serious: bool) -> None:
    found = answer(SMALL, start=error)
    assert found.cards == ()
    (problem,) = found.problems
    assert words in problem.sentence
    assert problem.serious is serious
    assert bool(problem.advice) is serious
    assert words in found.heard


CUT = Board(
    name="A100",
    uuid="GPU-eeee-5",
    gib=40,
    capability=(8, 0),
    is_cut=True,
    parts=(Part(uuid="MIG-1111-1", gib=4.75, instance=7), Part(uuid="MIG-2222-2", gib=9.5, instance=8)),
)


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, "MIG-1111-1"),
        ("0", "MIG-1111-1"),
        ("GPU-eeee", "MIG-1111-1"),
        ("MIG-2222-2", "MIG-2222-2"),
        ("MIG-2222", "MIG-2222-2"),
        ("MIG-GPU-eeee-5/8/0", "MIG-2222-2"),
        ("MIG-GPU-eeee-5/9/0", None),
        ("MIG-3333", None),
    ],
)
def test_of_a_board_that_is_cut_one_slice_is_a_card(visible: str | None, shown: str | None) -> None:
    found = answer(CUT, visible=visible)
    assert [card.uuid for card in found.cards] == ([] if shown is None else [shown])
    for card in found.cards:
        assert card.capability == (8, 0)
        assert card.total_bytes < 10 * GIB


def test_a_board_that_is_cut_into_nothing_is_no_card() -> None:
    assert answer(Board(name="A100", uuid="GPU-1", gib=40, is_cut=True)).cards == ()


def test_numbers_in_an_order_that_only_cuda_knows_are_remarked_upon() -> None:
    environ = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "0"}
    (problem,) = ask_nvml(environ, FakeNvml([SMALL, LARGE])).problems
    assert "FASTEST_FIRST" in problem.sentence
    assert "UUID" in problem.advice
    by_uuid = environ | {"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"}
    assert ask_nvml(by_uuid, FakeNvml([SMALL, LARGE])).problems == ()
    assert ask_nvml(environ, FakeNvml([SMALL])).problems == ()
