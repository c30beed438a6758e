"""A run opens the card that its plan is for, shows no other to CUDA, and says why where it can open none."""

import json
import os
from typing import Any

import click
import pytest
import torch

from acestep.devices import open as opening
from acestep.devices.open import look_with_torch, open_device, plan_to_run
from acestep.errors import Exit
from acestep.hardware.card import CPU, Card, CardKind
from acestep.hardware.detection import DEVICE_VARIABLE, look
from acestep.limits.machine import plan_here
from acestep.units import GIB
from calibrate.probes.cuda import child_environ
from tests import acestep_command
from tests.acestep_command import Command
from tests.fake_cards import MISMATCH, Board, properties
from tests.two_cards import LARGE, LISTED, SMALL, Driver

command = acestep_command.command


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


@pytest.mark.parametrize(("wish", "chosen"), [(None, LARGE), ("0", SMALL), ("4060", SMALL), ("GPU-bbbb", LARGE)])
def test_only_the_chosen_card_is_shown_to_cuda_and_the_others_are_named(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, wish: str | None, chosen: Board
) -> None:
    driver.torch()
    if wish is not None:
        monkeypatch.setenv(DEVICE_VARIABLE, wish)
    planned = plan_here()
    found = look_with_torch()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen.uuid
    assert found.card.uuid == planned.card.uuid == chosen.uuid
    other = SMALL if chosen is LARGE else LARGE
    assert any(other.name in sentence and "--device" in sentence for sentence in found.remarks)
    assert look_with_torch().card == found.card, "the same again, although the number now counts one card"


def test_a_cuda_that_is_open_already_is_left_as_it_is(driver: Driver) -> None:
    driver.torch(LISTED)
    opening.torch.cuda.is_initialized = lambda: True  # type: ignore[method-assign]
    assert look_with_torch().card.uuid == LARGE.uuid
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa-1,GPU-bbbb-2"


TOO_OLD = RuntimeError("The NVIDIA driver on your system is too old (found version 12020).")
UNKNOWN_ERROR = RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")


@pytest.mark.parametrize(
    ("build", "torch_says", "words"),
    [
        ({}, {"cuda": None}, "built for the CPU"),
        ({"cuda": "13.0"}, {"refusal": TOO_OLD}, "too old"),
        ({"cuda": "13.0"}, {"refusal": UNKNOWN_ERROR}, "unknown error"),
    ],
)
def test_a_run_without_the_card_says_why_and_blames_nothing_that_was_not_asked_for(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, build: dict[str, str], torch_says: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver.build(**build)
    driver.boards(LARGE)
    driver.torch([], **torch_says)
    plan = plan_to_run()
    assert plan.card is CPU
    (sentence,) = plan.warnings
    assert words in sentence
    assert "CPU" in sentence


def test_a_run_plans_for_what_torch_lists_where_the_library_says_nothing(driver: Driver) -> None:
    driver.boards(start=MISMATCH)
    driver.torch([properties("NVIDIA GeForce RTX 5060 Ti", "cccc-3", 15.47)])
    plan = plan_to_run()
    assert (plan.card.uuid, plan.card.nameplate_gib, plan.warnings) == ("GPU-cccc-3", 16, ())


@pytest.fixture
def real_torch(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The real torch with two cards in the order that CUDA counts by itself, and the devices that were made current."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: LISTED[::-1][index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(("board", "index"), [(LARGE, 0), (SMALL, 1)])
def test_the_card_is_opened_by_its_uuid(real_torch: list[torch.device], board: Board, index: int) -> None:
    card = Card(kind=CardKind.CUDA, name=board.name, uuid=board.uuid, total_bytes=GIB, capability=(8, 9))
    device, opened = open_device(card)
    assert opened is card
    assert device.torch_device == torch.device("cuda", index)
    assert real_torch == ([torch.device("cuda", index)] if index else [])


def test_children_of_a_prober_see_the_card_that_the_plan_names(driver: Driver) -> None:
    card = look(os.environ).card
    assert child_environ(os.environ, card.uuid)["CUDA_VISIBLE_DEVICES"] == LARGE.uuid


def test_the_option_holds_for_one_command(driver: Driver, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1,GPU-bbbb-2")
    plan = json.loads(command("plan", "--json", "--device", "4060").out)
    assert plan["card"]["uuid"] == SMALL.uuid
    assert DEVICE_VARIABLE not in os.environ
    assert json.loads(command("plan", "--json").out)["card"]["uuid"] == LARGE.uuid
    for wish, code in (("7", 2), ("", 2), ("RTX", 2)):
        done = command("plan", "--device", wish)
        assert (done.code, done.out) == (code, "")
        assert "--device" in done.err


@pytest.mark.parametrize("name", ["plan", "generate", "ui", "understand", "sample", "format", "doctor"])
def test_every_command_that_uses_a_card_takes_the_option(name: str) -> None:
    from acestep.cli.main import cli

    found = cli.commands[name]
    assert any(isinstance(option, click.Option) and "--device" in option.opts for option in found.params)


def test_the_doctor_says_what_it_asked_what_it_heard_and_what_to_do(
    driver: Driver, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1,GPU-bbbb-2")
    found = json.loads(command("doctor", "--json").out)
    assert [answer["source"] for answer in found["asked"]] == [
        "NVML",
        "NVIDIA system files",
        "Linux system files",
        "macOS",
    ]
    assert [card["uuid"] for card in found["cards"]] == [SMALL.uuid, LARGE.uuid]
    assert (found["card"]["uuid"], found["nameplate_gib"], found["size_by"]) == (LARGE.uuid, 24, "catalogue")
    assert any("--device 0" in sentence for sentence in found["advice"])
    page = command("doctor").out
    for part in ("asked NVML", SMALL.uuid, LARGE.uuid, "size by", "catalogue", "advice", "--ask-torch"):
        assert part in page


@pytest.mark.parametrize("wish", ["GPU-of-a-card-that-was-sold", "7"])
def test_the_doctor_says_what_it_heard_although_the_wished_card_is_not_here(
    driver: Driver, command: Command, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1,GPU-bbbb-2")
    monkeypatch.setenv(DEVICE_VARIABLE, wish)
    done = command("doctor", "--json")
    found = json.loads(done.out)
    assert (done.code, found["card"]["uuid"]) == (Exit.USAGE, LARGE.uuid)
    assert found["no_such_device"] in done.err
    for part in (wish, DEVICE_VARIABLE, SMALL.uuid):
        assert part in found["no_such_device"]
    page = command("doctor")
    assert page.code == Exit.USAGE
    assert "asked NVML" in page.out
    assert wish in page.err


@pytest.mark.parametrize("start", [9, 12, 18, 999])
def test_the_doctor_names_a_source_that_failed(driver: Driver, command: Command, start: int) -> None:
    driver.boards(start=start)
    page = command("doctor").out
    assert "NVIDIA's driver library" in page
    assert "advice: " in page
