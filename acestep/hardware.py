"""Which card is this? Found without torch, so that a question about limits costs milliseconds."""

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import UsageError
from acestep.units import GIB, gib, gib_to_bytes

SIMULATED_CAPABILITY = (8, 6)
"""Compute capability of a card that is only imagined: consumer Ampere, the commonest in reports."""

CONTEXT_BYTES = GIB // 2
"""What a CUDA context takes outside the allocator, until a record measures it (`context` in `tiers/policy.json`)."""

MPS_SHARE = 0.75
"""Share of an Apple machine's memory that Metal recommends as the GPU's working set."""

SMALLEST_CARD_BYTES = GIB
"""Less video memory than this is the carve-out of an integrated GPU, which nothing here could use."""

SIZE_LIMIT_GIB = 2**20
"""No card is as large: from here on a byte count leaves the integers that JSON readers agree on."""

_AMD, _INTEL = "0x1002", "0x8086"


class CardKind(StrEnum):
    """What drives a card; `cpu` when there is none."""

    CUDA = "cuda"
    ROCM = "rocm"
    XPU = "xpu"
    MPS = "mps"
    CPU = "cpu"


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An accelerator as found, or imagined. `capability` is (0, 0) where CUDA's numbering means nothing."""

    kind: CardKind
    name: str
    uuid: str = ""
    total_bytes: int = 0
    capability: tuple[int, int] = (0, 0)
    driver: str = ""

    def __post_init__(self) -> None:
        if self.total_bytes < 0:
            raise ValueError(f"total_bytes must be 0 or more, got {self.total_bytes}")

    @property
    def nameplate_gib(self) -> float:
        """The size on the card's box."""
        return nameplate_gib(self.total_bytes)


CPU = Card(kind=CardKind.CPU, name="CPU")
"""The card of a machine without one."""


def nameplate_gib(total_bytes: int) -> float:
    """The size on the box, in GiB, of a card that reports `total_bytes`.

    A card reports less than its box says. Within 0.5 GiB below a whole number, or 5 % of it where that is less, and
    after rounding to 0.01 GiB, a size is that number; any other size is itself.
    """
    hundredths = (total_bytes * 200 + GIB) // (2 * GIB)
    whole = -(-hundredths // 100)
    shortfall = min(50, 5 * whole)
    return float(whole) if whole * 100 - hundredths <= shortfall else total_bytes / GIB


def parse_size_gib(text: str, source: str) -> float:
    """A size a person gave in GiB; `UsageError` naming its `source` unless it is a number that a card can have."""
    with suppress(ValueError):
        size = float(text)
        if 0 < size < SIZE_LIMIT_GIB:
            return size
    raise UsageError(
        f"{source} must be a card's size in GiB, above 0 and below {SIZE_LIMIT_GIB}, such as 8, got {text!r}"
    )


def simulated_card(size_gib: float, kind: CardKind = CardKind.CUDA) -> Card:
    """A card that reports `size_gib` and exists only in a plan."""
    return Card(
        kind=kind,
        name=f"simulated {size_gib:g} GiB card",
        total_bytes=gib_to_bytes(size_gib),
        capability=SIMULATED_CAPABILITY if kind is CardKind.CUDA else (0, 0),
    )


def planning_card(environ: Mapping[str, str], detected: Card) -> Card:
    """The card to plan for: the detected one, or one of the size `MAX_CUDA_VRAM` or `MAX_MPS_VRAM` asks for."""
    for variable, kind in (("MAX_CUDA_VRAM", CardKind.CUDA), ("MAX_MPS_VRAM", CardKind.MPS)):
        if variable not in environ:
            continue
        size = parse_size_gib(environ[variable], variable)
        if detected.kind is not kind or gib_to_bytes(size) > detected.total_bytes:
            return simulated_card(size, kind)
        name = f"{detected.name} limited to {size:g} GiB"
        return msgspec.structs.replace(detected, name=name, total_bytes=gib_to_bytes(size))
    return detected


def cap_bytes(environ: Mapping[str, str], detected: Card) -> int | None:
    """What the allocator may hold under `MAX_CUDA_VRAM`; None when nothing is to be capped.

    Raises `UsageError` for a size that a CUDA context alone fills.
    """
    if "MAX_CUDA_VRAM" not in environ:
        return None
    text = environ["MAX_CUDA_VRAM"]
    size = gib_to_bytes(parse_size_gib(text, "MAX_CUDA_VRAM"))
    if detected.kind is not CardKind.CUDA or size >= detected.total_bytes:
        return None
    if size <= CONTEXT_BYTES:
        raise UsageError(
            f"MAX_CUDA_VRAM is {text} GiB, but the driver alone takes {gib(CONTEXT_BYTES)} of a card;"
            f" give it {SMALLEST_CARD_BYTES / GIB:g} or more"
        )
    return size - CONTEXT_BYTES


def detect(environ: Mapping[str, str], finders: Sequence[Callable[[], Card | None]] | None = None) -> Card:
    """The card a run would use here; `CPU` when no finder knows one."""
    if finders is None:
        finders = (partial(find_cuda, environ), find_drm, find_mps)
    return next((card for find in finders if (card := find()) is not None), CPU)


def find_cuda(environ: Mapping[str, str], nvml: Any = None) -> Card | None:
    """The first NVIDIA card that CUDA would see, as NVML describes it."""
    nvml = nvml or import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        handle, board = _visible_device(nvml, environ.get("CUDA_VISIBLE_DEVICES"))
        if handle is None:
            return None
        return Card(
            kind=CardKind.CUDA,
            name=nvml.nvmlDeviceGetName(handle),
            uuid=nvml.nvmlDeviceGetUUID(handle),
            total_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
            capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(board)),
            driver=nvml.nvmlSystemGetDriverVersion(),
        )
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _visible_device(nvml: Any, visible: str | None) -> tuple[Any, Any]:
    """The first visible device and the board it is on (they differ for a MIG slice), or (None, None).

    CUDA ignores everything from the first entry on that it does not understand, so only the first one counts.
    """
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.startswith("MIG-"):
        handle = nvml.nvmlDeviceGetHandleByUUID(first)
        return handle, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    boards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if first.isdecimal():
        boards = boards[int(first) : int(first) + 1]
    else:
        boards = [board for board in boards if first and nvml.nvmlDeviceGetUUID(board).startswith(first)]
    return (_slice_of(nvml, boards[0]), boards[0]) if boards else (None, None)


def _slice_of(nvml: Any, board: Any) -> Any:
    """The first MIG slice of a board that is cut into slices, which is what CUDA shows of it; else the board."""
    try:
        is_cut = nvml.nvmlDeviceGetMigMode(board)[0]
    except nvml.NVMLError:
        return board
    return nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, 0) if is_cut else board


def find_drm(root: Path = Path("/sys/class/drm")) -> Card | None:
    """The AMD or Intel card with the most video memory that the Linux kernel lists under `root`."""
    cards = [card for entry in sorted(root.glob("card*")) if (card := _drm_card(entry)) is not None]
    return max(cards, key=lambda card: card.total_bytes, default=None)


def _drm_card(entry: Path) -> Card | None:
    device = entry / "device"
    vendor = _read(device / "vendor")
    if vendor == _AMD:
        kind, brand, total = CardKind.ROCM, "AMD", _read(device / "mem_info_vram_total")
    elif vendor == _INTEL:
        # xe publishes its memory per tile, i915 (Intel's own build) per card; integrated GPUs have neither.
        kind, brand = CardKind.XPU, "Intel"
        total = _read(device / "tile0" / "physical_vram_size_bytes") or _read(entry / "lmem_total_bytes")
    else:
        return None
    if not total.isdecimal() or int(total) < SMALLEST_CARD_BYTES:
        return None
    event = dict(line.split("=", 1) for line in _read(device / "uevent").splitlines() if "=" in line)
    return Card(
        kind=kind,
        name=_read(device / "product_name") or f"{brand} graphics card {_read(device / 'device')}".strip(),
        uuid=_read(device / "unique_id") or event.get("PCI_SLOT_NAME", ""),
        total_bytes=int(total),
        driver=event.get("DRIVER", ""),
    )


def _read(path: Path) -> str:
    """A sysfs file's text, or nothing where the driver does not offer the file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _sysctl(name: str) -> str:
    return subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 fixed program, fixed names


def find_mps(
    system: str = platform.system(), machine: str = platform.machine(), sysctl: Callable[[str], str] = _sysctl
) -> Card | None:
    """The GPU of an Apple Silicon machine, with the share of its memory that Metal recommends to use."""
    if (system, machine) != ("Darwin", "arm64"):
        return None
    try:
        total, name = int(sysctl("hw.memsize")), sysctl("machdep.cpu.brand_string")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Card(kind=CardKind.MPS, name=name, total_bytes=int(total * MPS_SHARE))
