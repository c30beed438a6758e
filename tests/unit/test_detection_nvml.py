"""NVML's answer: the cards CUDA would show, whatever some of the library's functions refuse."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.nvml import ask_nvml, free_now
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
    found = answer(Board(name="A100", uuid="GPU-1", gib=40, is_cut=True), SMALL)
    assert [card.name for card in found.cards] == ["small"]
    (problem,) = found.problems
    assert "MIG" in problem.sentence
    assert "nvidia-smi" in problem.advice


def test_numbers_in_an_order_that_only_cuda_knows_are_remarked_upon() -> None:
    environ = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "0"}
    (problem,) = ask_nvml(environ, FakeNvml([SMALL, LARGE])).problems
    assert "FASTEST_FIRST" in problem.sentence
    assert "UUID" in problem.advice
    by_uuid = environ | {"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"}
    assert ask_nvml(by_uuid, FakeNvml([SMALL, LARGE])).problems == ()
    assert ask_nvml(environ, FakeNvml([SMALL])).problems == ()


class Odd(FakeNvml):
    """A library some functions of which answer something else."""

    def __init__(self, boards: list[Board], **odd: Any) -> None:
        self._odd = odd
        super().__init__(boards)

    def __getattr__(self, function: str) -> Any:
        odd = self.__dict__.get("_odd", {})
        return odd[function] if function in odd else super().__getattr__(function)


@pytest.mark.parametrize("size", [2**64 - 1, -5, 0.5, None, "much"])
def test_a_size_that_no_card_has_is_unknown(size: object) -> None:
    nvml = Odd([SMALL, LARGE], nvmlDeviceGetMemoryInfo=lambda unit: SimpleNamespace(total=size))
    found = ask_nvml({}, nvml, memory_bytes=GIB)
    assert [(card.name, card.total_bytes, card.unified) for card in found.cards if card.total_bytes == 0] == [
        (name, 0, False) for name in ("small", "large") if size != 0.5
    ]
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("function", "answer_of_small"),
    [
        ("nvmlDeviceGetCudaComputeCapability", [8]),
        ("nvmlDeviceGetCudaComputeCapability", "xy"),
        ("nvmlDeviceGetCudaComputeCapability", [0, 0]),
        ("nvmlDeviceGetCudaComputeCapability", [-9, 9999]),
        ("nvmlDeviceGetMigMode", 1),
        ("nvmlDeviceGetMigMode", ""),
        ("nvmlDeviceGetName", b"\xff\x1b[31m"),
        ("nvmlDeviceGetName", None),
        ("nvmlDeviceGetUUID", None),
        ("nvmlDeviceGetUUID", b"GPU-aaaa-1"),
    ],
)
def test_nonsense_about_one_board_hides_none(function: str, answer_of_small: object) -> None:
    usual = getattr(FakeNvml([SMALL, LARGE]), function)

    def odd(unit: Board) -> Any:
        if unit is SMALL:
            return answer_of_small
        return {"nvmlDeviceGetMigMode": [0, 0], "nvmlDeviceGetUUID": LARGE.uuid}.get(function, unit.name)

    assert callable(usual)
    found = ask_nvml({}, Odd([SMALL, LARGE], **{function: odd}))
    assert [card.total_bytes for card in found.cards] == [8 * GIB, 24 * GIB]
    assert all(card.capability >= (8, 0) and card.name.isprintable() and card.name for card in found.cards)
    assert found.problems == ()


@pytest.mark.parametrize("count", [-1, None, 2**31])
def test_a_count_that_no_machine_has_is_a_problem(count: object) -> None:
    found = ask_nvml({}, Odd([SMALL], nvmlDeviceGetCount=lambda: count))
    assert found.cards == ()
    assert str(count) in found.problems[0].sentence


@pytest.mark.parametrize("count", [10**9, 2**64 - 1, -1, "seven"])
def test_a_count_of_slices_that_no_board_has_takes_no_time(count: object) -> None:
    asked: list[int] = []

    def part(board: Board, index: int) -> Part:
        asked.append(index)
        assert len(asked) < 1000
        return board.parts[index]

    nvml = Odd(
        [CUT],
        nvmlDeviceGetMaxMigDeviceCount=lambda board: count,
        nvmlDeviceGetMigDeviceHandleByIndex=part,
    )
    found = ask_nvml({}, nvml)
    assert len(asked) < 1000
    assert [card.uuid for card in found.cards] == ["MIG-1111-1"]


def test_no_control_character_of_the_library_gets_into_a_sentence() -> None:
    def refuse() -> None:
        raise RuntimeError("lost\x1b[2J\nall")

    nvml = FakeNvml([SMALL])
    nvml.nvmlInit = refuse
    (problem,) = ask_nvml({}, nvml).problems
    assert problem.sentence.isprintable()
    assert "all" in problem.sentence


@pytest.mark.parametrize("version", [-1, 0, "13", None])
def test_a_cuda_version_that_is_none_is_unknown(version: object) -> None:
    assert ask_nvml({}, Odd([SMALL], nvmlSystemGetCudaDriverVersion=lambda: version)).driver_cuda == (0, 0)


@pytest.mark.parametrize("uuid", [None, ""])
def test_a_board_without_a_uuid_is_counted_by_its_number(uuid: object) -> None:
    odd = {"nvmlDeviceGetUUID": lambda unit: uuid if unit is LARGE else unit.uuid}
    for visible, shown in (("0", ["large"]), ("1", ["small"]), ("GPU-aa", ["small"])):
        found = ask_nvml({"CUDA_VISIBLE_DEVICES": visible}, Odd([LARGE, SMALL], **odd))
        assert [card.name for card in found.cards] == shown
        assert len(found.cards) + len(found.hidden) == 2


@pytest.mark.parametrize("name", ["NVIDIA GB10", "Orin (nvgpu)", "NVIDIA Thor"])
def test_a_board_that_is_known_to_share_the_main_memory_does_so_whatever_the_library_says(name: str) -> None:
    for board in (
        Board(name=name, uuid="GPU-1", gib=61.5),
        Board(name=name, uuid="GPU-1", gib=0, fails={"nvmlDeviceGetMemoryInfo": NO_PERMISSION}),
    ):
        (card,) = answer(board, memory_gib=61.5).cards
        assert (card.unified, card.total_bytes) == (True, int(61.5 * GIB))


def test_a_library_that_hangs_ends_no_command() -> None:
    freed = threading.Event()
    nvml = FakeNvml([SMALL])
    nvml.nvmlInit = freed.wait
    start = time.monotonic()
    found = ask_nvml({}, nvml, longest_s=0.05)
    assert "more than 0.05 s" in found.problems[0].sentence
    assert found.problems[0].serious
    # As long as the call hangs, the library is not asked again.
    card = Card(kind=CardKind.CUDA, name="small", uuid="GPU-aaaa-1")
    assert free_now(card, nvml) is None
    again = ask_nvml({}, FakeNvml([SMALL]))
    assert again.cards == ()
    assert "an earlier call still hangs" in again.problems[0].sentence
    assert time.monotonic() - start < 5
    freed.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon and "driver library" in thread.name:
            thread.join(5)
    assert ask_nvml({}, FakeNvml([SMALL])).cards != ()


def test_several_threads_may_ask_at_once() -> None:
    both = threading.Barrier(2)

    def ask() -> Any:
        nvml = FakeNvml([SMALL])
        opened = nvml.nvmlInit
        nvml.nvmlInit = lambda: (both.wait(5), opened())
        return ask_nvml({}, nvml)

    with ThreadPoolExecutor(2) as threads:
        answers = [task.result() for task in [threads.submit(ask) for _ in range(2)]]
    assert all(answer.cards for answer in answers)


@pytest.mark.parametrize("free", [-1, 2**64 - 1])
def test_free_memory_that_no_card_has_is_unknown(free: int) -> None:
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(free=free),
    )
    assert free_now(Card(kind=CardKind.CUDA, name="x", uuid="GPU-1"), nvml) is None
