"""Whatever the driver library does and the environment says, the card is one that CUDA shows, and failures are told."""

import json
import os
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware.card import CPU
from acestep.hardware.detection import look
from acestep.hardware.detection.apple import ask_apple
from acestep.hardware.detection.nvml import ask_nvml
from acestep.hardware.detection.torch_build import TorchBuild
from acestep.hardware.detection.visible import cuda_visible
from tests.fake_cards import Board, FakeNvml, Part, fake_torch, properties

FUNCTIONS = (
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetMaxMigDeviceCount",
)
LOSING = {"nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo"}
BUILD = TorchBuild(version="2.13.0", cuda="13.0")

errors = st.sampled_from([1, 3, 4, 6, 13, 15, 16, 17, 999])
ids = st.text(alphabet="ab1", min_size=2, max_size=4)
entries = st.one_of(
    st.integers(-1, 5).map(str),
    ids.map("GPU-{}".format),
    ids.map("MIG-{}".format),
    st.sampled_from(["", " ", "x", "0x1", "MIG-GPU-ab/1/0", "1gpu"]),
)
visibilities = st.one_of(st.none(), st.lists(entries, max_size=4).map(",".join))


@st.composite
def boards_of(draw: st.DrawFn) -> list[Board]:
    """Up to four boards of different UUIDs, some of them cut, some of them failing in a few functions."""
    boards = []
    for number, uuid in enumerate(draw(st.lists(ids, max_size=4, unique=True))):
        parts = tuple(Part(uuid=f"MIG-{uuid}{part}", gib=5, instance=part) for part in range(draw(st.integers(0, 2))))
        boards.append(
            Board(
                name=f"board {number}",
                uuid=f"GPU-{uuid}",
                gib=draw(st.sampled_from([0, 4, 8, 8, 24])),
                is_cut=draw(st.integers(0, 4)) == 0,
                parts=parts,
                fails=draw(st.dictionaries(st.sampled_from(FUNCTIONS), errors, max_size=2)),
            )
        )
    return boards


def shown_by_torch(text: str | None, uuids: list[str]) -> list[int]:
    """The positions that PyTorch counts as visible: it reads the variable by itself, as it found CUDA to."""
    environ = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    with patch.dict(os.environ, environ):
        if text is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        listed = torch.cuda._parse_visible_devices()
    if listed and isinstance(listed[0], str):
        return torch.cuda._transform_uuid_to_ordinals(listed, uuids)
    fitting = [index < len(uuids) for index in listed]
    return listed[: fitting.index(False)] if False in fitting else listed


@given(st.lists(ids.map("GPU-{}".format), max_size=4, unique=True), visibilities)
def test_numbers_and_uuids_are_read_as_pytorch_reads_them(uuids: list[str], text: str | None) -> None:
    if text is not None and text.strip().startswith("MIG-"):
        return
    assert list(cuda_visible(text, uuids)) == shown_by_torch(text, uuids)


@given(
    boards_of(), visibilities, st.sampled_from([0, 0, 0, 9, 12, 18, 999]), st.sampled_from(["", "0", "1", "GPU-a", "b"])
)
def test_the_card_is_one_that_cuda_shows_and_every_failure_is_told(
    boards: list[Board], text: str | None, start: int, wish: str
) -> None:
    nvml = FakeNvml(boards, start=start)
    environ = ({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) | {"ACESTEP_DEVICE": wish}
    sources = (partial(ask_nvml, environ, nvml, memory_bytes=2**36), partial(ask_apple, "Linux", "x86_64"))
    try:
        found = look(environ, sources=sources, build=lambda: BUILD)
    except UsageError as error:
        refusal = str(error)
        found = look(environ | {"ACESTEP_DEVICE": ""}, sources=sources, build=lambda: BUILD)
    else:
        refusal = ""
    assert not refusal or (wish and all(card.uuid in refusal for card in found.cards))
    assert nvml.opened == 0
    require_shown(found.card, boards, text)
    told = json.dumps([answer.heard for answer in found.answers])
    if start:
        assert found.card is CPU
        assert "NVIDIA's driver library" in told
        return
    working = [board for board in boards if not LOSING & set(board.fails)]
    for board in boards:
        if "nvmlDeviceGetHandleByIndex" in board.fails or "nvmlDeviceGetUUID" in board.fails:
            assert f"board {boards.index(board)} does not answer" in told
    known = {card.uuid for answer in found.answers for card in (*answer.cards, *answer.hidden)}
    for board in working:
        parts = {part.uuid for part in board.parts}
        assert board.uuid in known or parts & known or board.is_cut, "a board that works is listed, shown or hidden"


def require_shown(card: Any, boards: list[Board], text: str | None) -> None:
    """Raise `AssertionError` unless CUDA would show the card under this variable."""
    if card is CPU:
        return
    on = next(board for board in boards if card.uuid in {board.uuid, *(part.uuid for part in board.parts)})
    if text is not None and text.strip().startswith("MIG-"):
        part = next(part for part in on.parts if part.uuid == card.uuid)
        first = text.split(",")[0].strip()
        assert part.uuid.startswith(first) or f"MIG-{on.uuid}/{part.instance}/0".startswith(first)
        return
    lost = {"nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"}
    uuids = ["" if lost & set(board.fails) else board.uuid for board in boards]
    assert boards.index(on) in shown_by_torch(text, uuids)
    assert (card.uuid == on.uuid) != (on.is_cut and "nvmlDeviceGetMigMode" not in on.fails)


@given(boards_of(), st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_with_torch_the_card_is_the_largest_that_torch_lists_in_whatever_order(
    boards: list[Board], order: list[int], listed: list[bool]
) -> None:
    whole = [boards[place] for place in order if place < len(boards) and listed[place] and boards[place].gib]
    cards = [properties(board.name, board.uuid.removeprefix("GPU-"), board.gib * 0.96) for board in whole]
    sources = (partial(ask_nvml, {}, FakeNvml(boards), memory_bytes=2**36),)
    found = look({}, torch=fake_torch(cards), sources=sources, build=lambda: BUILD)
    assert len(found.cards) == len(cards)
    assert found.card.total_bytes == max((card.total_bytes for card in found.cards), default=0)
    for card, told in zip(found.cards, cards, strict=True):
        assert card.total_bytes <= told.total_memory, "never more than torch gives"
