"""`acestep doctor --measure`: four rates of a device in bounded time, and an estimate for the card of its document."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from acestep.cli import doctor as doctor_module
from acestep.devices import measure_speed as measure_module
from acestep.devices.cpu import CpuDevice
from acestep.devices.measure_speed import LAUNCHES, SECONDS_EACH, measure_speed
from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.hardware.card import CPU, Card, CardKind
from acestep.hardware.speed import MeasuredSpeed
from acestep.units import GIB
from calibrate.cli import cli as calibrate
from calibrate.probes.work import KernelSums, Work
from calibrate.timing.cards import card_speed
from calibrate.timing.measured_card import card_or_file, speed_of
from calibrate.timing.roofline import work_seconds
from tests import acestep_command, formula_card
from tests.formula_card import Run
from tests.small_card import SmallCard

command = formula_card.command
acestep = acestep_command.command


class PinningCard(SmallCard):
    """A small card with page-locked memory."""

    def pinned(self, n_bytes: int) -> Tensor:
        return torch.empty(n_bytes, dtype=torch.uint8)


class Clock:
    """Moves by a tenth of a second with each look."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.looks / 10


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WIDTH", "INNER", "CARD_ROWS", "HOST_ROWS"):
        monkeypatch.setattr(measure_module, name, 8)
    for name in ("CARD_BYTES", "HOST_BYTES"):
        monkeypatch.setattr(measure_module, name, 1000)


@pytest.mark.parametrize("device", [CpuDevice(), PinningCard()], ids=["the processor", "a card"])
def test_every_rate_is_that_of_the_best_run_and_all_take_a_few_seconds(device: CpuDevice) -> None:
    clock = Clock()
    speed = measure_speed(device, CPU, clock)
    operations = 2 * 8 * (8 * 8 + 2 * 8 * 8)
    assert speed.products_tflops == pytest.approx(operations / 0.1 / 1e12)
    assert speed.copy_gbs == pytest.approx(2000 / 0.1 / 1e9)
    assert speed.launch_us == pytest.approx(0.1 / LAUNCHES * 1e6)
    assert (speed.bus_gbs is None) is device.shares_host_memory
    assert speed.dtype == "float32"
    assert 3 * SECONDS_EACH <= speed.seconds < 20


def test_the_processor_itself_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "SECONDS_EACH", 0.01)
    speed = measure_speed(CpuDevice(), CPU)
    assert min(speed.products_tflops, speed.copy_gbs, speed.launch_us) > 0


def test_a_card_without_page_locked_memory_has_no_rate_of_its_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "SECONDS_EACH", 0.01)
    assert measure_speed(SmallCard(), CPU).bus_gbs is None


def test_doctor_prints_what_it_measured_and_puts_it_into_its_document(
    acestep: acestep_command.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = SPEED
    monkeypatch.setattr(doctor_module, "measured", lambda found: msgspec.structs.replace(found, speed=measured))
    assert json.loads(acestep("doctor", "--json").out)["speed"] is None
    assert msgspec.convert(json.loads(acestep("doctor", "--measure", "--json").out)["speed"], MeasuredSpeed) == measured
    page = acestep("doctor", "--measure").out
    for part in ("RTX 9990", "bfloat16", "page-locked", "launches"):
        assert part in page


SPEED = MeasuredSpeed(
    kind=CardKind.CUDA,
    name="RTX 9990",
    total_bytes=12 * GIB,
    capability=(8, 9),
    dtype="bfloat16",
    products_tflops=30.0,
    copy_gbs=400.0,
    bus_gbs=20.0,
    launch_us=9.0,
    seconds=8.0,
)


def test_work_of_one_kind_takes_what_was_measured() -> None:
    card = speed_of(SPEED, "doctor.json")
    product = Work(products=KernelSums(3 * 10**13, 0, 0, 1))
    assert work_seconds(product, card) == pytest.approx(1.0, rel=0.01)
    copies = Work(others=KernelSums(0, 2 * 10**11, 2 * 10**11, 1))
    assert work_seconds(copies, card) == pytest.approx(1.0, rel=0.01)
    assert work_seconds(Work(transferred_bytes=2 * 10**10), card) == pytest.approx(1.0, rel=0.01)
    launches = Work(others=KernelSums(0, 0, 0, 10**6))
    assert work_seconds(launches, card) == pytest.approx(9.0, rel=0.01)


def document(path: Path, speed: MeasuredSpeed | None) -> Path:
    path.write_text(json.dumps({"tier": "tier5", "speed": msgspec.to_builtins(speed)}))
    return path


def test_a_file_of_doctor_names_a_card_that_is_not_known(command: Run, tmp_path: Path) -> None:
    file = document(tmp_path / "card.json", SPEED)
    assert card_or_file(str(file)).name == "RTX 9990"
    assert card_or_file("rtx 4060") is card_speed("RTX 4060")
    code, out, err = command(calibrate, "estimate", "--card", file, "--duration", 10, "--lm", "none", "--json")
    assert code == Exit.OK, err
    assert json.loads(out)["knobs"]["variant"] == "turbo"
    with pytest.raises(UsageError, match="doctor --measure"):
        card_or_file("GT 710")


@pytest.mark.parametrize("speed", [None, msgspec.structs.replace(SPEED, kind=CardKind.CPU)])
def test_a_file_without_the_speed_of_an_nvidia_card_is_refused(tmp_path: Path, speed: MeasuredSpeed | None) -> None:
    with pytest.raises(InvalidInputError, match=r"NVIDIA|no measured speed"):
        card_or_file(str(document(tmp_path / "card.json", speed)))


def test_the_device_is_opened_for_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "SECONDS_EACH", 0.01)
    monkeypatch.setattr("acestep.devices.open.open_here", lambda: (CpuDevice(), Card(kind=CardKind.CPU, name="CPU")))
    found = doctor_module.measured(doctor_module.examine())
    assert found.speed is not None
    assert found.speed.kind is CardKind.CPU


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_full_device_is_not_measured_and_says_what_to_do(
    acestep: acestep_command.Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> MeasuredSpeed:
        raise error

    monkeypatch.setattr(measure_module, "measure_speed", full)
    monkeypatch.setattr("acestep.devices.open.open_here", lambda: (CpuDevice(), CPU))
    done = acestep("doctor", "--measure", "--json")
    assert done.code == Exit.RUN_FAILED
    assert "1.5 GiB" in json.loads(done.out)["error"]["message"]
