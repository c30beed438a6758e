"""A torch that does not fit the card or its driver is told, and whatever it does while it is asked is an answer."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from acestep.errors import UsageError
from acestep.hardware.card import CPU, Card, CardKind
from acestep.hardware.detection.answers import Answer, Problem, Source
from acestep.hardware.detection.torch_build import TorchBuild
from acestep.hardware.detection.torch_cards import ask_torch, torch_index
from acestep.hardware.detection.torch_child import ask_torch_in_child
from acestep.units import GIB
from tests import detected
from tests.detected import FOR_CPU, LARGE, Machine
from tests.fake_cards import FakeNvml, drm_card, fake_torch, properties

machine = detected.machine


def test_a_wish_that_torch_cannot_grant_says_why(machine: Machine) -> None:
    machine.nvml, machine.build = FakeNvml([LARGE]), FOR_CPU
    with pytest.raises(UsageError, match="built for the CPU"):
        machine.look(torch=fake_torch(cuda=None), ACESTEP_DEVICE="large")


@pytest.mark.parametrize("asked", [False, True])
def test_a_torch_for_the_cpu_is_told_where_a_card_is_here(machine: Machine, asked: bool) -> None:
    machine.nvml, machine.build = FakeNvml([LARGE]), FOR_CPU
    found = machine.look(torch=fake_torch(cuda=None) if asked else None)
    assert found.card.name == ("CPU" if asked else "large"), "a plan without torch is for the card"
    (sentence,) = found.remarks
    for part in ("2.13.0+cpu", "built for the CPU", "large", "Install a torch"):
        assert part in sentence


@pytest.mark.parametrize("cuda", [12020, 11040])
def test_a_driver_too_old_for_torch_is_told_with_or_without_torch(machine: Machine, cuda: int) -> None:
    machine.nvml = FakeNvml([LARGE], driver="535.1", cuda=cuda)
    refusal = RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update your GPU")
    for torch in (None, fake_torch(refusal=refusal)):
        found = machine.look(torch=torch)
        (sentence,) = found.remarks
        for part in ("535.1", "too old", "2.13.0", f"{cuda // 1000}.{cuda % 1000 // 10}", "Update the driver"):
            assert part in sentence
        assert found.card is CPU or torch is None


@pytest.mark.parametrize(("cuda", "built"), [(13000, "13.0"), (12020, "12.8"), (13010, "13.0"), (14000, "13.2")])
def test_a_driver_that_runs_this_torch_is_not_too_old(machine: Machine, cuda: int, built: str) -> None:
    machine.nvml, machine.build = FakeNvml([LARGE], cuda=cuda), TorchBuild(version="2", cuda=built)
    assert machine.look().remarks == ()


def test_a_driver_too_old_is_told_where_only_torch_knows_of_it(machine: Machine) -> None:
    refusal = RuntimeError("The NVIDIA driver on your system is too old (found version 12020).")
    (sentence,) = machine.look(torch=fake_torch(refusal=refusal)).remarks
    assert "too old" in sentence
    assert "Update the driver" in sentence


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing"),
        RuntimeError("Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before"),
        AssertionError("Torch not compiled with CUDA enabled"),
        OSError("libcuda.so.1: cannot open shared object file"),
        ValueError(""),
    ],
)
def test_a_torch_that_refuses_a_card_that_is_here_is_quoted(machine: Machine, refusal: Exception) -> None:
    machine.nvml = FakeNvml([LARGE])
    found = machine.look(torch=fake_torch(refusal=refusal))
    assert found.card is CPU
    (sentence,) = found.remarks
    assert "large" in sentence
    assert str(refusal)[:20] in sentence
    assert "doctor" in sentence


def test_a_torch_that_breaks_is_an_answer_too() -> None:
    broken = SimpleNamespace(__version__="0", version=SimpleNamespace())
    assert ask_torch(broken).problems
    assert torch_index(broken, Card(kind=CardKind.CUDA, name="x")) == 0


def test_a_card_that_torch_cannot_read_does_not_hide_others(machine: Machine) -> None:
    torch = fake_torch([None, properties("fine", "1", 8)])
    found = machine.look(torch=torch)
    assert found.card.name == "fine"
    assert torch_index(torch, found.card) == 1


def test_intel_graphics_in_a_processor_are_used_where_torch_lists_them(machine: Machine) -> None:
    drm_card(machine.drm, "card0", "0x8086")
    assert machine.look().card is CPU
    torch = fake_torch(cuda=None)
    told = SimpleNamespace(name="Intel(R) Graphics", total_memory=28 * GIB)
    torch.xpu = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda _: told)
    assert machine.look(torch=torch).card == Card(kind=CardKind.XPU, name="Intel(R) Graphics", total_bytes=28 * GIB)


def test_a_torch_in_a_process_of_its_own_answers_for_itself() -> None:
    found = ask_torch_in_child(dict(os.environ))
    assert found.source is Source.TORCH
    assert found.asked.startswith("torch ")
    assert found.cards == ()


@pytest.mark.parametrize(
    ("code", "longest_s", "words"),
    [
        ("import time; time.sleep(60)", 0.2, "no answer within"),
        ("raise ImportError('libcudart is missing')", 20, "libcudart is missing"),
        ("print('hello')", 20, "could not be asked"),
        ("import os; os.kill(os.getpid(), 9)", 20, "exit code -9"),
    ],
)
def test_a_child_that_fails_is_an_answer(code: str, longest_s: float, words: str) -> None:
    found = ask_torch_in_child({}, [sys.executable, "-c", code], longest_s=longest_s)
    assert words in found.heard
    assert all(problem.advice for problem in found.problems)


def test_a_child_that_is_not_there_is_an_answer(tmp_path: Path) -> None:
    assert "could not be asked" in ask_torch_in_child({}, [str(tmp_path / "nothing")]).heard


def test_an_answer_survives_json() -> None:
    given = Answer(
        source=Source.TORCH,
        asked="torch",
        cards=(Card(kind=CardKind.CUDA, name="x", total_bytes=1, capability=(9, 0)),),
        problems=(Problem(sentence="s", advice="a"),),
    )
    assert msgspec.json.decode(msgspec.json.encode(given), type=Answer) == given
