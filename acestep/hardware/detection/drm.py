"""AMD and Intel cards in the Linux kernel's files about graphics cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from acestep.hardware.card import LARGEST_CARD_BYTES, SMALLEST_CARD_BYTES, Card, CardKind
from acestep.hardware.detection.answers import Answer, Problem, Source, one_line
from acestep.hardware.detection.visible import rocm_visible, xpu_visible
from acestep.units import GIB, gib

DRM_FILES = Path("/sys/class/drm")

AMD, INTEL, NVIDIA = "0x1002", "0x8086", "0x10de"

AMD_SHARING = frozenset(
    (
        *("0x15dd", "0x15d8", "0x1636", "0x1638", "0x164c", "0x15e7", "0x163f", "0x164d", "0x164e", "0x1681"),
        *("0x1506", "0x15bf", "0x15c8", "0x1900", "0x1901", "0x13c0", "0x150e", "0x1586", "0x1114"),
    )
)
"""PCI numbers of AMD's processors with graphics, which share the main memory (drivers/gpu/drm/amd/amdgpu)."""

LARGEST_CARVE_OUT = 4 * GIB
"""Above this size it is memory of its own, if the kernel does not say: firmware rarely reserves more for graphics."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A card in the kernel's files, and why it cannot be used, if that is so."""

    card: Card
    unusable: str | None = None


def ask_drm(environ: Mapping[str, str], root: Path = DRM_FILES) -> Answer:
    """The AMD and Intel cards that their runtimes would show, and the others."""
    entries = [entry for folder in _folders(root) if (entry := _entry(folder)) is not None]
    amd = [entry for entry in entries if entry.card.kind is CardKind.ROCM]
    # Level Zero counts cards with memory of their own first.
    intel = sorted(
        (entry for entry in entries if entry.card.kind is CardKind.XPU), key=lambda entry: bool(entry.unusable)
    )
    shown = [amd[index] for index in rocm_visible(environ, [_rocm_uuid(entry.card) for entry in amd])]
    shown += [intel[index] for index in xpu_visible(environ.get("ZE_AFFINITY_MASK"), len(intel))]
    return Answer(
        source=Source.DRM,
        asked=str(root),
        cards=tuple(entry.card for entry in shown if not entry.unusable),
        hidden=tuple(entry.card for entry in entries if entry not in shown and not entry.unusable),
        problems=_problems(entries),
    )


def read(path: Path) -> str:
    """Return a system file's text, "" if the driver does not offer the file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _folders(root: Path) -> list[Path]:
    """Cards in the order of their slots, each once; connectors are folders too, and have no vendor."""
    try:
        folders = [entry for entry in root.glob("card*") if read(entry / "device" / "vendor")]
    except OSError:
        return []
    return sorted(folders, key=lambda entry: (_event(entry).get("PCI_SLOT_NAME", ""), len(entry.name), entry.name))


def _event(entry: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in read(entry / "device" / "uevent").splitlines() if "=" in line)


def _entry(folder: Path) -> _Entry | None:
    device = folder / "device"
    vendor = read(device / "vendor")
    if vendor == AMD:
        kind, brand = CardKind.ROCM, "AMD"
        total, unified = _amd_memory(device)
    elif vendor == INTEL:
        kind, brand, unified = CardKind.XPU, "Intel", False
        # xe publishes its memory per tile, i915 (Intel's own build) per card; integrated GPUs have neither.
        total = _bytes(device / "tile0" / "physical_vram_size_bytes") or _bytes(folder / "lmem_total_bytes")
    else:
        return None
    event, unique = _event(folder), read(device / "unique_id")
    card = Card(
        kind=kind,
        name=one_line(read(device / "product_name")) or f"{brand} graphics card {read(device / 'device')}".strip(),
        uuid=unique or event.get("PCI_SLOT_NAME", ""),
        total_bytes=total,
        driver=event.get("DRIVER", ""),
        unified=unified,
    )
    if total >= SMALLEST_CARD_BYTES:
        return _Entry(card=card)
    if vendor == INTEL and not total:
        return _Entry(card=card, unusable="shares the main memory; only a torch built for Intel GPUs can use it")
    return _Entry(
        card=card,
        unusable=f"has {gib(total)} of memory, too little" if total else "does not say how much memory it has",
    )


def _amd_memory(device: Path) -> tuple[int, bool]:
    """Return a card's bytes, and whether they are the machine's own.

    The driver gives programs the shared part if a processor's graphics have more of it than was reserved for them
    (`apu_prefer_gtt` in amdgpu_ttm.c).
    """
    own, shared = _bytes(device / "mem_info_vram_total"), _bytes(device / "mem_info_gtt_total")
    if _shares_memory(device, own, shared):
        return max(own, shared), True
    return own, False


def _shares_memory(device: Path, own: int, shared: int) -> bool:
    """Return whether a card is part of a processor.

    The vendor of its memory chips is known only for cards that have some.
    """
    if read(device / "device") in AMD_SHARING:
        return True
    has_chips = bool(read(device / "mem_info_vram_vendor") or read(device / "unique_id"))
    return not has_chips and own <= LARGEST_CARVE_OUT and shared >= 2 * own and shared >= SMALLEST_CARD_BYTES


def _bytes(path: Path) -> int:
    """The number in a file; 0 if it has none, or more than any card has."""
    text = read(path)
    number = int(text) if text.isdecimal() and len(text) < 20 else 0
    return number if number <= LARGEST_CARD_BYTES else 0


def _rocm_uuid(card: Card) -> str:
    return f"GPU-{card.uuid}"


def _problems(entries: Sequence[_Entry]) -> tuple[Problem, ...]:
    return tuple(
        Problem(sentence=f"{entry.card.name} ({entry.card.uuid}) {entry.unusable}.", serious=False)
        for entry in entries
        if entry.unusable
    )
