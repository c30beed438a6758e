"""From all sources' answers one card is used, and everything else is reported."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from acestep.errors import UsageError
from acestep.hardware.card import CPU
from acestep.hardware.detection import look
from acestep.hardware.detection.answers import Source
from acestep.hardware.detection.apple import ask_apple
from acestep.hardware.detection.torch_build import TorchBuild
from acestep.hardware.detection.torch_cards import torch_index
from acestep.units import GIB
from tests import detected
from tests.detected import LARGE, SMALL, Machine
from tests.fake_cards import (
    DRIVER_NOT_LOADED,
    IS_LOST,
    LIBRARY_NOT_FOUND,
    MISMATCH,
    NOT_SUPPORTED,
    Board,
    FakeNvml,
    Part,
    amd_card,
    driver_file,
    fake_torch,
    properties,
)

machine = detected.machine


def test_a_machine_without_a_card_has_the_cpu_and_nothing_to_explain(machine: Machine) -> None:
    for torch in (None, fake_torch(refusal=RuntimeError("Found no NVIDIA driver on your system. Please check"))):
        found = machine.look(torch=torch)
        assert (found.card, found.cards, found.remarks) == (CPU, (), ())


def test_of_several_cards_the_largest_is_used_and_the_others_are_named_with_how_to_choose(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    found = machine.look()
    assert found.card.name == "large"
    (sentence,) = found.remarks
    for part in ("large", "small", "GPU-aaaa-1", "--device 0", "ACESTEP_DEVICE"):
        assert part in sentence


@pytest.mark.parametrize("wish", ["0", "cuda:0", "GPU-aaaa-1", "GPU-aa", "small", "SMA"])
def test_a_card_is_chosen_by_number_uuid_or_name(machine: Machine, wish: str) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    assert machine.look(ACESTEP_DEVICE=wish).card.name == "small"
    assert machine.look(ACESTEP_DEVICE="cpu").card is CPU


@pytest.mark.parametrize(
    "wish", ["CUDA:1", "cuda", "auto", "1", "bbbb-2", "bbbb2", "gpu-BBBB", "0xbbbb", "cuda:01", " 1 "]
)
def test_a_card_is_chosen_as_other_programs_write_it(machine: Machine, wish: str) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    assert machine.look(ACESTEP_DEVICE=wish).card.name == "large"
    assert machine.look(ACESTEP_DEVICE="cpu:0").card is CPU


@pytest.mark.parametrize(
    "wish", ["rocm", "hip", "cuda", "cuda:0", "rocm:0", "GPU-1111111122222222", "0x11111111", "7900"]
)
def test_an_amd_card_has_the_names_of_torch_and_of_its_own_programs(machine: Machine, wish: str) -> None:
    machine.build = TorchBuild(version="2.13.0+rocm7", hip="7.1")
    amd_card(machine.drm, "card0", 24, product_name="Radeon RX 7900 XTX", unique_id="1111111122222222")
    amd_card(machine.drm, "card1", 0.5, 31, product_name="graphics in the processor")
    assert machine.look(ACESTEP_DEVICE=wish).card.name == "Radeon RX 7900 XTX"


@pytest.mark.parametrize("form", [" Ti", " SUPER", " Laptop GPU"])
def test_a_name_that_is_a_part_of_another_name_means_its_own_card(machine: Machine, form: str) -> None:
    names = (f"NVIDIA GeForce RTX 3060{form}", "NVIDIA GeForce RTX 3060")
    machine.nvml = FakeNvml([Board(name=name, uuid=f"GPU-{name}", gib=8) for name in names])
    for wish in ("RTX 3060", "geforce rtx 3060", "rtx-3060"):
        assert machine.look(ACESTEP_DEVICE=wish).card.name == names[1]


def test_control_characters_of_a_wish_are_shown_as_python_writes_them(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    with pytest.raises(UsageError) as refused:
        machine.look(ACESTEP_DEVICE="x\x1b[2J")
    assert "'x\\x1b[2J'" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("wish", ["4", "9", "40", "mps", "mps:0", "xpu:0", "rocm", "cpu:1"])
def test_a_number_out_of_range_or_another_kind_is_no_part_of_a_name(machine: Machine, wish: str) -> None:
    machine.nvml = FakeNvml([Board(name="NVIDIA GeForce RTX 4090", uuid="GPU-1", gib=24), LARGE])
    with pytest.raises(UsageError, match="names no card"):
        machine.look(ACESTEP_DEVICE=wish)


def test_a_wish_for_a_card_that_is_hidden_says_how_to_show_it(machine: Machine) -> None:
    parts = (Part(uuid="MIG-1111", gib=4.75, instance=1), Part(uuid="MIG-2222", gib=9.5, instance=2))
    machine.nvml = FakeNvml([Board(name="A100", uuid="GPU-e", gib=40, is_cut=True, parts=parts)])
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES=MIG-2222"):
        machine.look(ACESTEP_DEVICE="MIG-2222")
    machine.nvml = FakeNvml([SMALL, LARGE])
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES=GPU-bbbb-2"):
        machine.look(ACESTEP_DEVICE="large", CUDA_VISIBLE_DEVICES="0")


@pytest.mark.parametrize("wish", ["2", "GPU-", "l", "medium", "cuda:7", "-1", "99999999999999999999"])
def test_a_wish_for_no_card_or_for_several_lists_the_cards(machine: Machine, wish: str) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    with pytest.raises(UsageError, match=r"0: small .* 1: large"):
        machine.look(ACESTEP_DEVICE=wish)


def test_a_number_out_of_range_may_be_part_of_a_name(machine: Machine) -> None:
    machine.nvml = FakeNvml([Board(name="RTX 3060", uuid="GPU-1", gib=12), LARGE])
    assert machine.look(ACESTEP_DEVICE="3060").card.name == "RTX 3060"


def test_a_hidden_card_cannot_be_chosen_and_its_absence_is_explained(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL])
    found = machine.look(CUDA_VISIBLE_DEVICES="")
    assert found.card is CPU
    (sentence,) = found.remarks
    for part in ("small", "CUDA_VISIBLE_DEVICES", "Unset", "UUID"):
        assert part in sentence
    with pytest.raises(UsageError):
        machine.look(CUDA_VISIBLE_DEVICES="", ACESTEP_DEVICE="small")


@pytest.mark.parametrize("start", [LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED, MISMATCH])
def test_what_torch_opens_counts_where_nvml_says_nothing(machine: Machine, start: int) -> None:
    machine.nvml = FakeNvml([], start=start)
    found = machine.look(torch=fake_torch([properties("NVIDIA GeForce RTX 4090", "aaaa-1", 23.53)]))
    assert (found.card.uuid, found.card.nameplate_gib, found.card.capability) == ("GPU-aaaa-1", 24, (8, 9))
    assert found.remarks == ()
    assert any(answer.source is Source.NVML and answer.problems for answer in found.answers)


def test_a_library_that_does_not_fit_the_driver_is_told_where_no_other_source_helps(machine: Machine) -> None:
    machine.nvml = FakeNvml([], start=MISMATCH)
    found = machine.look()
    assert found.card is CPU
    assert "another version" in found.remarks[0]
    driver_file(machine.driver, "0000:01:00.0", "NVIDIA GeForce RTX 3090", "GPU-1")
    found = machine.look()
    assert (found.card.name, found.card.nameplate_gib) == ("NVIDIA GeForce RTX 3090", 24)
    assert "another version" in found.remarks[0]


def test_a_container_without_the_library_asks_torch(machine: Machine) -> None:
    (machine.devices / "nvidia0").touch()
    found = machine.look()
    assert found.card is CPU
    assert "only torch can describe" in found.remarks[0]
    found = machine.look(torch=fake_torch([properties("NVIDIA L4", "1", 22.05)]))
    assert (found.card.nameplate_gib, found.remarks) == (24, ())
    machine.nvml = FakeNvml([SMALL])
    assert machine.look().remarks == ()


def test_shared_memory_is_as_large_as_torch_gives_and_at_most_what_the_machine_has(machine: Machine) -> None:
    spark = Board(name="NVIDIA GB10", uuid="GPU-dddd-4", gib=0, fails={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})
    machine.nvml = FakeNvml([spark])
    assert machine.look().card.total_bytes == 120 * GIB
    found = machine.look(torch=fake_torch([properties("NVIDIA GB10", "dddd-4", 119.7, is_integrated=1)]))
    assert (found.card.total_bytes, found.card.unified) == (int(119.7 * GIB), True)
    assert found.remarks == ()


def test_a_card_whose_driver_refuses_its_size_is_no_shared_one_where_torch_says_so(machine: Machine) -> None:
    silent = Board(name="NVIDIA X", uuid="GPU-eeee-5", gib=0, fails={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})
    small = Board(name="NVIDIA Y", uuid="GPU-ffff-6", gib=4)
    machine.nvml = FakeNvml([small, silent])
    told = [
        properties("NVIDIA Y", "ffff-6", 3.81, is_integrated=0),
        properties("NVIDIA X", "eeee-5", 7.68, is_integrated=0),
    ]
    found = machine.look(torch=fake_torch(told))
    assert (found.card.uuid, found.card.total_bytes, found.card.unified) == ("GPU-eeee-5", int(7.68 * GIB), False)


def test_where_sources_disagree_the_smaller_size_counts_and_both_are_told(machine: Machine) -> None:
    machine.build = TorchBuild(version="2.13.0+rocm7", hip="7.1")
    amd_card(machine.drm, "card0", 0.5, 115, device="0x1586", product_name="Strix Halo")
    found = machine.look(torch=fake_torch([properties("Strix Halo", "", 61.35)], cuda=None, hip="7.1"))
    assert found.card.total_bytes == int(61.35 * GIB)
    assert found.card.unified
    (sentence,) = found.sizes
    assert "115" in sentence
    assert "61.35" in sentence


def test_a_lost_board_is_told_before_every_run(machine: Machine) -> None:
    machine.nvml = FakeNvml(
        [Board(name="x", uuid="GPU-c", gib=80, fails={"nvmlDeviceGetHandleByIndex": IS_LOST}), SMALL]
    )
    for torch in (None, fake_torch([properties("small", "aaaa-1", 7.6)])):
        found = machine.look(torch=torch)
        assert found.card.name == "small"
        assert any("does not answer" in sentence for sentence in found.remarks)


def test_a_lost_board_is_not_used_because_a_file_lists_it(machine: Machine) -> None:
    lost = Board(name="x", uuid="GPU-1", gib=24, fails={"nvmlDeviceGetHandleByIndex": IS_LOST})
    driver_file(machine.driver, "0000:01:00.0", "NVIDIA GeForce RTX 3090", "GPU-1")
    machine.nvml = FakeNvml([lost])
    found = machine.look()
    assert found.card is CPU
    assert "does not answer" in found.remarks[0]


def test_a_card_is_known_by_its_uuid_and_not_by_its_number(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    torch = fake_torch([properties("large", "bbbb-2", 23.53), properties("small", "aaaa-1", 7.6)])
    found = machine.look(torch=torch, CUDA_DEVICE_ORDER="FASTEST_FIRST")
    assert [card.name for card in found.cards] == ["large", "small"]
    assert found.card.total_bytes == int(23.53 * GIB)
    assert torch_index(torch, found.card) == 0
    small = machine.look(torch=torch, ACESTEP_DEVICE="GPU-aaaa").card
    assert torch_index(torch, small) == 1


def test_what_torch_lists_counts_where_only_cuda_knows_the_order(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    environ = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "0"}
    assert "FASTEST_FIRST" in machine.look(**environ).remarks[0]
    found = machine.look(torch=fake_torch([properties("large", "bbbb-2", 23.53)]), **environ)
    assert (found.card.uuid, found.card.name, found.card.driver) == ("GPU-bbbb-2", "large", "580.1")
    assert found.card.total_bytes == int(23.53 * GIB)


def test_cards_that_are_hidden_beside_one_that_is_used_need_no_explanation(machine: Machine) -> None:
    machine.nvml = FakeNvml([SMALL, LARGE])
    found = machine.look(CUDA_VISIBLE_DEVICES="0")
    assert (found.card.name, found.remarks) == ("small", ())


def test_a_card_of_unknown_size_gives_a_warning(machine: Machine) -> None:
    driver_file(machine.driver, "0000:01:00.0", "NVIDIA Something", "GPU-1")
    found = machine.look()
    assert found.card.total_bytes == 0
    assert any("how much memory" in sentence for sentence in found.remarks)


def test_equal_cards_are_distinguished_by_uuid(machine: Machine) -> None:
    twins = [Board(name="twin", uuid=f"GPU-{index}", gib=24) for index in range(3)]
    machine.nvml = FakeNvml(twins)
    torch = fake_torch([properties("twin", str(index), 23.5) for index in (2, 1, 0)])
    assert [card.uuid for card in machine.look(torch=torch).cards] == ["GPU-2", "GPU-1", "GPU-0"]
    assert torch_index(torch, machine.look(torch=torch, ACESTEP_DEVICE="GPU-0").card) == 2


def test_a_slice_is_the_card_that_torch_lists_by_whatever_uuid(machine: Machine) -> None:
    cut = Board(name="A100", uuid="GPU-e", gib=40, is_cut=True, parts=(Part(uuid="MIG-1", gib=4.75),))
    machine.nvml = FakeNvml([cut])
    for uuid in ("1", "e"):
        found = machine.look(torch=fake_torch([properties("A100 MIG 1g.5gb", uuid, 4.75)]))
        assert (found.card.uuid, found.card.nameplate_gib) == ("MIG-1", 5)


@pytest.mark.parametrize("torch_uuid", ["", "31313131-3131-3131-3232-323232323232"])
def test_an_amd_card_is_recognized_by_its_unique_number_or_its_slot(machine: Machine, torch_uuid: str) -> None:
    machine.build = TorchBuild(version="2.13.0+rocm7", hip="7.1")
    files = {"mem_info_vram_vendor": "samsung"} | ({"unique_id": "1111111122222222"} if torch_uuid else {})
    amd_card(machine.drm, "card0", 16, product_name="first", uevent="PCI_SLOT_NAME=0000:03:00.0", **files)
    amd_card(
        machine.drm, "card1", 24, product_name="second", uevent="PCI_SLOT_NAME=0000:83:00.0", mem_info_vram_vendor="x"
    )
    slots = {"pci_domain_id": 0, "pci_device_id": 0}
    listed = [
        properties("AMD Radeon", "", 23.98, pci_bus_id=0x83, **slots),
        properties("AMD Radeon", torch_uuid, 15.98, pci_bus_id=3, **slots),
    ]
    found = machine.look(torch=fake_torch(listed, cuda=None, hip="7.1"))
    assert [(card.name, card.kind) for card in found.cards] == [("second", "rocm"), ("first", "rocm")]


def test_a_card_with_memory_of_its_own_goes_before_graphics_that_share_the_machines(machine: Machine) -> None:
    machine.build = TorchBuild(version="2.13.0+rocm7", hip="7.1")
    amd_card(machine.drm, "card0", 0.5, 62, product_name="graphics in the processor")
    amd_card(machine.drm, "card1", 16, 62, product_name="Radeon", mem_info_vram_vendor="samsung")
    found = machine.look()
    assert found.card.name == "Radeon"
    assert "graphics in the processor" in found.remarks[0]
    assert machine.look(ACESTEP_DEVICE="graphics").card.total_bytes == 62 * GIB


def test_the_kind_that_torch_is_built_for_decides_between_cards_of_two_makers(machine: Machine) -> None:
    machine.nvml = FakeNvml([LARGE])
    amd_card(machine.drm, "card0", 0.5, 62, product_name="graphics in the processor")
    assert machine.look().card.name == "large"
    machine.build = TorchBuild(version="2.13.0+rocm7", hip="7.1")
    assert machine.look().card.name == "graphics in the processor"
    machine.build = None
    assert machine.look().card.name == "large"


def test_an_apple_machine_has_the_smaller_of_two_sizes() -> None:
    torch = fake_torch(cuda=None)
    torch.backends.mps.is_available = lambda: True
    torch.mps = SimpleNamespace(recommended_max_memory=lambda: 11 * GIB)
    answers = {"hw.memsize": str(16 * GIB), "machdep.cpu.brand_string": "Apple M2"}
    sources = [lambda: ask_apple("Darwin", "arm64", answers.__getitem__)]
    found = look({}, torch=torch, sources=sources, build=lambda: TorchBuild(version="2.13.0"))
    assert (found.card.name, found.card.total_bytes) == ("Apple M2", 11 * GIB)
    assert len(found.sizes) == 1


def test_each_source_is_logged_with_what_it_was_asked_and_answered(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.nvml = FakeNvml([SMALL])
    machine.look()
    assert not caplog.records
    with caplog.at_level("INFO", logger="acestep"):
        machine.look(torch=fake_torch([properties("small", "aaaa-1", 7.6)]))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 5
    assert "GPU-aaaa-1" in said[0]
    assert "torch 2.13.0" in said[-1]


def test_looking_imports_no_torch() -> None:
    code = "import sys; from acestep.hardware.detection import look; look(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
