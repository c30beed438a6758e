"""The system's files: AMD's, Intel's and NVIDIA's cards on Linux, and Apple's machines."""

import shutil
from pathlib import Path

import pytest

from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.apple import ask_apple
from acestep.hardware.detection.drm import ask_drm
from acestep.hardware.detection.nvidia_files import ask_nvidia_files
from acestep.hardware.detection.torch_build import installed_build
from acestep.hardware.host import host_memory
from acestep.units import GIB
from tests.fake_cards import amd_card, driver_file, drm_card, pci_device


def only(root: Path, **environ: str) -> Card:
    (card,) = ask_drm(environ, root).cards
    return card


def test_an_amd_card_is_found_and_named(tmp_path: Path) -> None:
    event = "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0"
    amd_card(tmp_path, "card1", 16, 32, product_name="Radeon", uevent=event, mem_info_vram_vendor="samsung")
    (tmp_path / "card1-HDMI-A-1").mkdir()
    assert only(tmp_path) == Card(
        kind=CardKind.ROCM, name="Radeon", uuid="0000:03:00.0", total_bytes=16 * GIB, driver="amdgpu"
    )


@pytest.mark.parametrize(
    ("own", "shared", "files"),
    [
        (0.5, 62, {}),
        (0.5, 15, {}),
        (0.25, 7.5, {}),
        (1, 30, {}),
        (2, 14, {}),
        (4, 14, {"device": "0x1900"}),
        (16, 64, {"device": "0x15dd"}),
        (0.5, 115, {"device": "0x1586"}),
    ],
)
def test_graphics_in_a_processor_have_the_memory_that_the_driver_gives_them(
    tmp_path: Path, own: float, shared: float, files: dict[str, str]
) -> None:
    amd_card(tmp_path, "card0", own, shared, **files)
    card = only(tmp_path)
    assert card.unified
    assert card.total_bytes == int(shared * GIB)


def test_graphics_in_a_processor_keep_a_large_part_that_was_set_aside(tmp_path: Path) -> None:
    amd_card(tmp_path, "card0", 96, 16, device="0x1586")
    card = only(tmp_path)
    assert (card.unified, card.total_bytes) == (True, 96 * GIB)


@pytest.mark.parametrize(
    ("own", "shared", "files"),
    [
        (16, 64, {}),
        (8, 32, {}),
        (4, 32, {"mem_info_vram_vendor": "hynix"}),
        (4, 32, {"unique_id": "4b2c1a9f8d3e6f7a"}),
        (2, 16, {"mem_info_vram_vendor": "micron"}),
        (24, 0, {}),
    ],
)
def test_a_card_of_its_own_has_its_own_memory_only(
    tmp_path: Path, own: float, shared: float, files: dict[str, str]
) -> None:
    amd_card(tmp_path, "card0", own, shared, **files)
    card = only(tmp_path)
    assert (card.unified, card.total_bytes) == (False, int(own * GIB))


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, ["one", "two"]),
        ({"HIP_VISIBLE_DEVICES": "1"}, ["two"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["two"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-2222222222222222"}, ["two"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["two"]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"ROCR_VISIBLE_DEVICES": "-1"}, []),
    ],
)
def test_the_environment_hides_amd_cards(tmp_path: Path, environ: dict[str, str], shown: list[str]) -> None:
    # The kernel numbers them in another order than their slots, which ROCm counts.
    for name, file, slot in (("one", "card1", "0000:03:00.0"), ("two", "card0", "0000:83:00.0")):
        unique = ("1" if name == "one" else "2") * 16
        amd_card(tmp_path, file, 16, product_name=name, unique_id=unique, uevent=f"PCI_SLOT_NAME={slot}")
    found = ask_drm(environ, tmp_path)
    assert [card.name for card in found.cards] == shown
    assert {card.name for card in (*found.cards, *found.hidden)} == {"one", "two"}


@pytest.mark.parametrize("file", ["tile0/physical_vram_size_bytes", "lmem_total_bytes"])
def test_an_intel_card_with_memory_of_its_own_is_found(tmp_path: Path, file: str) -> None:
    drm_card(tmp_path, "card0", "0x8086", **{file: str(12 * GIB)})
    card = only(tmp_path)
    assert (card.kind, card.total_bytes) == (CardKind.XPU, 12 * GIB)
    assert ask_drm({"ZE_AFFINITY_MASK": "1"}, tmp_path).cards == ()


@pytest.mark.parametrize(
    ("vendor", "files", "words"),
    [
        ("0x8086", {}, "shares the main memory"),
        ("0x1002", {"mem_info_vram_total": "what"}, "does not say"),
        ("0x1002", {"mem_info_vram_total": "9" * 40}, "does not say"),
        ("0x1002", {"mem_info_vram_total": "9" * 19}, "does not say"),
        ("0x1002", {"mem_info_vram_total": "1" + "0" * 15, "mem_info_gtt_total": str(2**63)}, "does not say"),
        ("0x8086", {"lmem_total_bytes": str(2**62)}, "shares the main memory"),
        ("0x1002", {"mem_info_vram_total": str(GIB // 2)}, "too little"),
    ],
)
def test_graphics_without_usable_memory_are_no_card_and_are_mentioned(
    tmp_path: Path, vendor: str, files: dict[str, str], words: str
) -> None:
    drm_card(tmp_path, "card0", vendor, **files)
    found = ask_drm({}, tmp_path)
    assert found.cards == ()
    assert words in found.heard


def test_integrated_graphics_do_not_shift_the_number_of_a_card(tmp_path: Path) -> None:
    drm_card(tmp_path, "card0", "0x8086", uevent="PCI_SLOT_NAME=0000:00:02.0")
    drm_card(tmp_path, "card1", "0x8086", uevent="PCI_SLOT_NAME=0000:03:00.0", lmem_total_bytes=str(16 * GIB))
    assert only(tmp_path, ZE_AFFINITY_MASK="0").total_bytes == 16 * GIB


def test_files_that_are_not_there_or_cannot_be_read_are_no_card(tmp_path: Path) -> None:
    assert ask_drm({}, tmp_path / "nothing").cards == ()
    device = amd_card(tmp_path, "card0", 8)
    (device / "uevent").write_bytes(b"\xff\xfe\x00")
    assert only(tmp_path).total_bytes == 8 * GIB
    shutil.rmtree(device)
    assert ask_drm({}, tmp_path).cards == ()
    assert ask_nvidia_files({}, tmp_path / "nothing", tmp_path).cards == ()


def test_nvidias_kernel_driver_names_its_cards_where_the_library_does_not(tmp_path: Path) -> None:
    driver_file(tmp_path, "0000:01:00.0", "NVIDIA GeForce RTX 3090", "GPU-1")
    driver_file(tmp_path, "0000:02:00.0", "NVIDIA Something", "GPU-????????")
    found = ask_nvidia_files({}, tmp_path)
    assert [(card.name, card.uuid, card.total_bytes // GIB) for card in found.cards] == [
        ("NVIDIA GeForce RTX 3090", "GPU-1", 24),
        ("NVIDIA Something", "", 0),
    ]
    assert all(card.capability == (8, 6) for card in found.cards)
    for visible, count in (("GPU-1", 1), ("1", 1), ("", 0), ("MIG-1", 0)):
        assert len(ask_nvidia_files({"CUDA_VISIBLE_DEVICES": visible}, tmp_path).cards) == count


@pytest.mark.parametrize(("uuid", "visible"), [("GPU-1", "MIG-1"), ("GPU-1", " MIG-GPU-1/1/0"), ("GPU-????", "GPU-1")])
def test_a_card_that_the_files_cannot_identify_is_not_said_to_be_hidden(
    tmp_path: Path, uuid: str, visible: str
) -> None:
    driver_file(tmp_path, "0000:01:00.0", "NVIDIA A100-SXM4-40GB", uuid)
    found = ask_nvidia_files({"CUDA_VISIBLE_DEVICES": visible}, tmp_path)
    assert (found.cards, found.hidden) == ((), ())
    assert "only torch can describe" in found.heard
    driver_file(tmp_path / "all", "0000:01:00.0", "NVIDIA A100-SXM4-40GB", "GPU-1")
    assert len(ask_nvidia_files({"CUDA_VISIBLE_DEVICES": "GPU-1"}, tmp_path / "all").cards) == 1


def test_a_board_without_memory_of_its_own_has_the_machines(tmp_path: Path) -> None:
    driver_file(tmp_path, "000f:01:00.0", "NVIDIA GB10", "GPU-1")
    (card,) = ask_nvidia_files({}, tmp_path).cards
    assert (card.unified, card.total_bytes) == (True, host_memory().total_bytes)


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA GeForce GTX 1070", (6, 1)),
        ("Tesla T4", (7, 5)),
        ("NVIDIA GeForce RTX 2080 Ti", (7, 5)),
        ("NVIDIA A100-SXM4-40GB", (8, 0)),
        ("NVIDIA A10G", (8, 6)),
        ("NVIDIA RTX A4000", (8, 6)),
        ("NVIDIA RTX 4000 Ada Generation", (8, 9)),
        ("NVIDIA RTX 2000 Ada Generation", (8, 9)),
        ("NVIDIA RTX 3500 Ada Generation Laptop GPU", (8, 9)),
        ("NVIDIA RTX 6000 Ada Generation", (8, 9)),
        ("Quadro RTX 6000", (7, 5)),
        ("GRID RTX8000-12Q", (7, 5)),
        ("GRID V100-16C", (7, 0)),
        ("NVIDIA GeForce RTX 2050", (8, 6)),
        ("NVIDIA GeForce MX550", (7, 5)),
        ("NVIDIA GeForce GT 1030", (6, 1)),
        ("NVIDIA GeForce GTX 970", (5, 2)),
        ("NVIDIA GeForce GTX 780", (3, 5)),
        ("Tesla K80", (3, 7)),
        ("NVIDIA RTX PRO 2000 Blackwell", (12, 0)),
        ("Orin (nvgpu)", (8, 7)),
        ("NVIDIA L4", (8, 9)),
        ("NVIDIA H100 80GB HBM3", (9, 0)),
        ("NVIDIA GeForce RTX 5060 Ti", (12, 0)),
        ("Tesla V100S-PCIE-32GB", (7, 0)),
        ("GRID V100D-8Q", (7, 0)),
        ("GRID V100DX-16C", (7, 0)),
        ("Quadro GV100", (7, 0)),
        ("NVIDIA TITAN V", (7, 0)),
        ("GRID P100X-4Q", (6, 0)),
        ("GRID P100C-6Q", (6, 0)),
        ("Quadro GP100", (6, 0)),
        ("Quadro P1000", (6, 1)),
        ("GRID P6-8Q", (6, 1)),
        ("P106-100", (6, 1)),
        ("P104-100", (6, 1)),
        ("NVIDIA A100X", (8, 0)),
        ("GRID A100DX-4C", (8, 0)),
        ("NVIDIA A30X", (8, 0)),
        ("NVIDIA A800-SXM4-80GB", (8, 0)),
        ("GeForce 940MX", (5, 0)),
        ("GeForce 930M", (5, 0)),
        ("GeForce GTX 960M", (5, 0)),
        ("NVIDIA GeForce GTX 970M", (5, 2)),
        ("GeForce MX130", (5, 0)),
        ("GeForce MX150", (6, 1)),
        ("GRID M10-0B", (5, 0)),
        ("Tesla M10", (5, 0)),
        ("GRID M60-8Q", (5, 2)),
        ("GRID M6-4Q", (5, 2)),
        ("NVIDIA GeForce GTX 750 Ti", (5, 0)),
        ("Quadro M2000M", (5, 0)),
        ("Quadro M2000", (5, 2)),
        ("Quadro K2200", (5, 0)),
        ("NVIDIA RTX A1000", (8, 6)),
        ("NVIDIA A40-48Q", (8, 6)),
        ("NVIDIA L40S-48C", (8, 9)),
        ("NVIDIA H100XM-80C", (9, 0)),
        ("NVIDIA H100L-94C", (9, 0)),
        ("NVIDIA GH200 480GB", (9, 0)),
        ("NVIDIA H20", (9, 0)),
        ("NVIDIA B200", (10, 0)),
        ("NVIDIA GB300", (10, 3)),
        ("GRID RTX6000P-8Q", (7, 5)),
        ("NVIDIA CMP 170HX", (8, 0)),
        ("NVIDIA Graphics Device", (8, 6)),
    ],
)
def test_the_name_of_a_card_tells_its_capability(tmp_path: Path, name: str, capability: tuple[int, int]) -> None:
    driver_file(tmp_path, "0000:01:00.0", name, "GPU-1")
    assert ask_nvidia_files({}, tmp_path).cards[0].capability == capability


def test_the_name_and_uuid_of_a_card_hold_no_control_character(tmp_path: Path) -> None:
    driver_file(tmp_path, "0000:01:00.0", "NVIDIA\x1b[2J A100\x07", "GPU-1\x1b[m")
    (card,) = ask_nvidia_files({}, tmp_path).cards
    assert (card.name.isprintable(), card.uuid.isprintable(), card.capability) == (True, True, (8, 0))


@pytest.mark.parametrize("sign", ["nvidia0", "dxg", "nvhost-gpu"])
def test_a_card_that_only_torch_could_describe_is_mentioned(tmp_path: Path, sign: str) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    (devices / sign).touch()
    found = ask_nvidia_files({}, tmp_path / "nothing", tmp_path, devices)
    assert sign in found.heard
    assert "--ask-torch" in found.problems[0].advice


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("nouveau", "nouveau"),
        ("nova_core", "nova_core"),
        ("vfio-pci", "vfio-pci"),
        ("", "no driver"),
        ("nvidia", "--gpus"),
    ],
)
def test_a_card_on_the_bus_that_nothing_gives_access_to_is_explained(tmp_path: Path, driver: str, words: str) -> None:
    event = f"DRIVER={driver}\nPCI_ID=10DE:2684" if driver else "PCI_ID=10DE:2684"
    pci_device(tmp_path, "0000:01:00.0", "0x10de", "0x030000", event)
    pci_device(tmp_path, "0000:01:00.1", "0x10de", "0x040300", "DRIVER=snd_hda_intel")
    pci_device(tmp_path, "0000:02:00.0", "0x1002", "0x030000", "DRIVER=amdgpu")
    nothing = tmp_path / "nothing"
    found = ask_nvidia_files({}, nothing, tmp_path, nothing)
    assert found.cards == ()
    (problem,) = found.problems
    assert words in str(problem)
    assert "0000:01:00.0" in problem.sentence
    assert ask_nvidia_files({"CUDA_VISIBLE_DEVICES": ""}, nothing, tmp_path, nothing).problems == ()


def test_apple_silicon_counts_three_quarters_of_its_memory() -> None:
    answers = {"hw.memsize": str(16 * GIB), "machdep.cpu.brand_string": "Apple M2"}
    (card,) = ask_apple("Darwin", "arm64", answers.__getitem__).cards
    assert card == Card(kind=CardKind.MPS, name="Apple M2", total_bytes=12 * GIB, unified=True)


@pytest.mark.parametrize("size", ["-5", "0", "9" * 25, "much", ""])
def test_an_apple_machine_of_an_impossible_size_has_no_card_and_says_so(size: str) -> None:
    found = ask_apple("Darwin", "arm64", {"hw.memsize": size, "machdep.cpu.brand_string": "Apple M2"}.__getitem__)
    assert found.cards == ()
    assert "macOS does not say" in found.heard


@pytest.mark.parametrize(("system", "machine"), [("Linux", "arm64"), ("Darwin", "x86_64")])
def test_no_other_machine_has_metal(system: str, machine: str) -> None:
    assert ask_apple(system, machine, lambda _: pytest.fail("asked")).cards == ()


def test_an_apple_machine_that_does_not_answer_has_no_card_and_says_so() -> None:
    def silent(name: str) -> str:
        raise OSError(name)

    found = ask_apple("Darwin", "arm64", silent)
    assert found.cards == ()
    assert "macOS does not say" in found.heard


@pytest.mark.parametrize(
    ("lines", "built_for", "kinds"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "CUDA 13.0", {"cuda", "mps"}),
        ("cuda = None\nhip: Optional[str] = '7.1'\n", "ROCm 7.1", {"rocm", "mps"}),
        ("cuda: Optional[str] = None\nxpu: Optional[str] = '20250301'\n", "Intel GPUs 20250301", {"xpu", "mps"}),
        ("cuda: Optional[str] = None\n", "the CPU", {"mps"}),
        ('cuda: Optional[str] = "13.0"\nhip: Optional[str] = None\n', "CUDA 13.0", {"cuda", "mps"}),
    ],
)
def test_what_torch_is_built_for_is_read_from_its_files(
    tmp_path: Path, lines: str, built_for: str, kinds: set[str]
) -> None:
    file = tmp_path / "version.py"
    file.write_text(f"from typing import Optional\n__version__ = '2.13.0'\ndebug = False\n{lines}")
    build = installed_build(file)
    assert build is not None
    assert (build.version, build.built_for, set(build.kinds)) == ("2.13.0", built_for, kinds)


def test_a_torch_that_is_not_there_has_no_build(tmp_path: Path) -> None:
    assert installed_build(tmp_path / "version.py") is None
    (tmp_path / "version.py").write_text("print('what')")
    assert installed_build(tmp_path / "version.py") is None
