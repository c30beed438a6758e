"""Cards are found without torch, and a size means the same wherever it comes from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware import (
    CONTEXT_BYTES,
    CPU,
    SIMULATED_CAPABILITY,
    Card,
    CardKind,
    cap_bytes,
    detect,
    find_cuda,
    find_drm,
    find_mps,
    nameplate_gib,
    parse_size_gib,
    planning_card,
    simulated_card,
)
from acestep.knobs import Variant
from acestep.tiers import load_tiers
from acestep.units import GIB, gib_to_bytes

TABLE = load_tiers(Path(__file__).parents[1] / "fixtures" / "tiers.json").variants[Variant.TURBO]
H100 = Card(kind=CardKind.CUDA, name="H100", uuid="GPU-1", total_bytes=79 * GIB, capability=(9, 0), driver="1")

sizes = st.floats(0.01, 200)


def tier_of(size: float) -> str:
    return next(tier.id for tier in TABLE.tiers if size in tier.vram_gib)


@pytest.mark.parametrize(
    ("tier", "reported"),
    [
        ("tier1", (0, 3.9, 4)),
        ("tier2", (4.4, 5.6, 5.9, 6)),
        ("tier3", (6.4, 7.4)),
        ("tier4", (7.6, 8, 9.9)),
        ("tier5", (11.6, 12, 15.4)),
        ("tier6a", (15.5, 15.995, 16)),
        ("tier6b", (19.6, 20, 23.4)),
        ("unlimited", (23.5, 24, 79)),
    ],
)
def test_every_reported_size_is_in_the_tier_of_its_box(tier: str, reported: tuple[float, ...]) -> None:
    assert {tier_of(nameplate_gib(gib_to_bytes(size))) for size in reported} == {tier}


@given(sizes)
def test_a_nameplate_exceeds_the_reported_size_by_the_allowed_shortfall_at_most(size: float) -> None:
    nameplate = nameplate_gib(gib_to_bytes(size))
    rounding = 0.0051
    assert size - rounding <= nameplate <= size + min(0.5, 0.05 * nameplate) + rounding


@given(sizes, sizes)
def test_a_larger_card_never_has_a_smaller_nameplate(one: float, other: float) -> None:
    small, large = sorted((gib_to_bytes(one), gib_to_bytes(other)))
    assert nameplate_gib(small) <= nameplate_gib(large)


@given(st.integers(1, 200))
def test_a_whole_size_is_its_own_nameplate(size: int) -> None:
    assert nameplate_gib(size * GIB) == size


@pytest.mark.parametrize("variable", ["MAX_CUDA_VRAM", "MAX_MPS_VRAM"])
@pytest.mark.parametrize("value", ["", "eight", "0", "-4", "nan", "inf", "-inf", "8GB", "1e300"])
def test_a_size_that_is_no_positive_number_is_a_usage_error_naming_the_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        planning_card({variable: value}, H100)


@pytest.mark.parametrize("value", ["inf", "1e309", "1048576", "0", "nan", "eight"])
def test_a_size_that_no_card_has_is_refused_with_both_bounds(value: str) -> None:
    with pytest.raises(UsageError, match=f"above 0 and below 1048576, such as 8, got '{value}'"):
        parse_size_gib(value, "--vram")


def test_a_bad_size_is_never_silently_no_cap() -> None:
    with pytest.raises(UsageError, match="MAX_CUDA_VRAM"):
        cap_bytes({"MAX_CUDA_VRAM": "lots"}, CPU)


@given(st.floats(0.01, 78.9))
def test_a_limit_below_the_real_card_keeps_the_card_and_caps_it_at_the_size_less_the_context(size: float) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    card = planning_card(environ, H100)
    assert (card.uuid, card.capability, card.total_bytes) == (H100.uuid, H100.capability, gib_to_bytes(size))
    assert f"{size:g} GiB" in card.name
    if card.total_bytes > CONTEXT_BYTES:
        assert cap_bytes(environ, H100) == gib_to_bytes(size) - CONTEXT_BYTES


@given(st.floats(0.01, CONTEXT_BYTES / GIB))
def test_a_limit_that_the_driver_alone_fills_is_a_usage_error_on_a_real_card_only(size: float) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    with pytest.raises(UsageError, match=r"MAX_CUDA_VRAM is .* give it 1 or more"):
        cap_bytes(environ, H100)
    assert cap_bytes(environ, CPU) is None


@given(st.floats(80, 500), st.sampled_from([H100, CPU, Card(kind=CardKind.ROCM, name="AMD", total_bytes=999 * GIB)]))
def test_a_limit_no_cuda_card_here_has_is_planned_for_and_caps_nothing(size: float, detected: Card) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    card = planning_card(environ, detected)
    assert (card.kind, card.capability, card.total_bytes) == (
        CardKind.CUDA,
        SIMULATED_CAPABILITY,
        gib_to_bytes(size),
    )
    assert "simulated" in card.name
    assert cap_bytes(environ, detected) is None


def test_a_limit_of_the_cards_own_size_keeps_the_card_and_caps_nothing() -> None:
    card = planning_card({"MAX_CUDA_VRAM": "79"}, H100)
    assert (card.uuid, card.total_bytes) == (H100.uuid, H100.total_bytes)
    assert cap_bytes({"MAX_CUDA_VRAM": "79"}, H100) is None


def test_only_the_cuda_variable_caps() -> None:
    assert cap_bytes({}, H100) is None
    assert cap_bytes({"MAX_MPS_VRAM": "8"}, H100) is None
    assert planning_card({"MAX_MPS_VRAM": "8"}, H100).kind is CardKind.MPS


def test_without_the_variables_the_plan_is_for_the_card_that_is_there() -> None:
    assert planning_card({}, H100) is H100


class FakeNvmlError(Exception):
    pass


def fake_nvml(boards: list[SimpleNamespace], *, driver: bool = True) -> SimpleNamespace:
    """Boards as NVML lists them; one with slices is cut by MIG. `log` counts what was opened and not closed."""
    log: list[str] = []
    slices = {part.uuid: (part, board) for board in boards for part in board.slices}

    def check(fine: object, answer: Any = None) -> Any:
        if not fine:
            raise FakeNvmlError
        return answer

    return SimpleNamespace(
        log=log,
        NVMLError=FakeNvmlError,
        nvmlInit=lambda: check(driver, log.append("open")),
        nvmlShutdown=lambda: log.remove("open"),
        nvmlDeviceGetCount=lambda: len(boards),
        nvmlDeviceGetHandleByIndex=boards.__getitem__,
        nvmlDeviceGetHandleByUUID=lambda uuid: check(uuid in slices) or slices[uuid][0],
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle=lambda part: slices[part.uuid][1],
        nvmlDeviceGetName=lambda device: device.name,
        nvmlDeviceGetUUID=lambda device: device.uuid,
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(total=device.gib * GIB),
        nvmlDeviceGetCudaComputeCapability=lambda device: check(device in boards, device.capability),
        nvmlSystemGetDriverVersion=lambda: "999.1",
        nvmlDeviceGetMigMode=lambda device: check(device.slices, (1, 1)),
        nvmlDeviceGetMigDeviceHandleByIndex=lambda device, index: device.slices[index],
    )


def board(name: str, uuid: str, gib: int, *slices: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(name=name, uuid=uuid, gib=gib, capability=[8, 9], slices=slices)


TWO_BOARDS = [board("first", "GPU-aaaa-1", 8), board("second", "GPU-bbbb-2", 24)]


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, "first"),
        ("0", "first"),
        ("1", "second"),
        ("1,0", "second"),
        (" 1 ", "second"),
        ("GPU-bbbb-2", "second"),
        ("GPU-bb", "second"),
        ("", None),
        ("-1", None),
        ("7", None),
        ("7,0", None),
        ("GPU-cc", None),
        ("NoDevFiles", None),
        ("MIG-unknown", None),
    ],
)
def test_the_cuda_card_is_the_first_one_that_cuda_would_see(visible: str | None, found: str | None) -> None:
    nvml = fake_nvml(TWO_BOARDS)
    card = find_cuda({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, nvml)
    assert (card and card.name) == found
    assert nvml.log == []


def test_a_cuda_card_carries_what_nvml_says_of_it() -> None:
    assert find_cuda({}, fake_nvml(TWO_BOARDS)) == Card(
        kind=CardKind.CUDA,
        name="first",
        uuid="GPU-aaaa-1",
        total_bytes=8 * GIB,
        capability=(8, 9),
        driver="999.1",
    )


@pytest.mark.parametrize("environ", [{}, {"CUDA_VISIBLE_DEVICES": "MIG-1"}])
def test_a_board_that_is_cut_into_slices_is_as_large_as_one_slice(environ: dict[str, str]) -> None:
    part = board("A100 slice", "MIG-1", 10)
    card = find_cuda(environ, fake_nvml([board("A100", "GPU-1", 40, part)]))
    assert card is not None
    assert (card.name, card.total_bytes, card.capability) == ("A100 slice", 10 * GIB, (8, 9))


@pytest.mark.parametrize("nvml", [fake_nvml([], driver=False), fake_nvml([])])
def test_no_driver_and_no_board_mean_no_cuda_card(nvml: SimpleNamespace) -> None:
    assert find_cuda({}, nvml) is None


def drm_card(root: Path, name: str, vendor: str, **files: str) -> None:
    device = root / name / "device"
    device.mkdir(parents=True)
    for file, text in {"vendor": vendor, "device": "0x744c", **files}.items():
        target = (root / name if file == "lmem_total_bytes" else device) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")


def test_the_largest_amd_card_is_found_and_named(tmp_path: Path) -> None:
    drm_card(tmp_path, "card0", "0x1002", mem_info_vram_total=str(GIB // 2))
    drm_card(
        tmp_path,
        "card1",
        "0x1002",
        mem_info_vram_total=str(16 * GIB),
        product_name="Radeon",
        uevent="DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0",
    )
    (tmp_path / "card1-HDMI-A-1").mkdir()
    card = find_drm(tmp_path)
    assert card == Card(kind=CardKind.ROCM, name="Radeon", uuid="0000:03:00.0", total_bytes=16 * GIB, driver="amdgpu")


@pytest.mark.parametrize("file", ["tile0/physical_vram_size_bytes", "lmem_total_bytes"])
def test_an_intel_card_with_memory_of_its_own_is_found(tmp_path: Path, file: str) -> None:
    drm_card(tmp_path, "card0", "0x8086", **{file: str(12 * GIB)})
    card = find_drm(tmp_path)
    assert card is not None
    assert (card.kind, card.total_bytes) == (CardKind.XPU, 12 * GIB)


@pytest.mark.parametrize(
    ("vendor", "files"),
    [
        ("0x8086", {}),
        ("0x1002", {"mem_info_vram_total": "what"}),
        ("0x1002", {"mem_info_vram_total": str(GIB // 2)}),
        ("0x10de", {"mem_info_vram_total": str(8 * GIB)}),
    ],
)
def test_graphics_without_usable_memory_of_their_own_are_no_card(
    tmp_path: Path, vendor: str, files: dict[str, str]
) -> None:
    drm_card(tmp_path, "card0", vendor, **files)
    assert find_drm(tmp_path) is None


def test_apple_silicon_counts_three_quarters_of_its_memory() -> None:
    answers = {"hw.memsize": str(16 * GIB), "machdep.cpu.brand_string": "Apple M2"}
    card = find_mps("Darwin", "arm64", answers.__getitem__)
    assert card == Card(kind=CardKind.MPS, name="Apple M2", total_bytes=12 * GIB)


@pytest.mark.parametrize(("system", "machine"), [("Linux", "arm64"), ("Darwin", "x86_64")])
def test_no_other_machine_has_metal(system: str, machine: str) -> None:
    assert find_mps(system, machine, lambda _: pytest.fail("asked")) is None


def test_an_apple_machine_that_does_not_answer_has_no_card() -> None:
    def silent(name: str) -> str:
        raise OSError(name)

    assert find_mps("Darwin", "arm64", silent) is None


def test_the_first_finder_that_knows_a_card_decides_and_none_means_the_cpu() -> None:
    amd = simulated_card(8)
    assert detect({}, [lambda: None, lambda: H100, lambda: amd]) is H100
    assert detect({}, [lambda: None]) is CPU
