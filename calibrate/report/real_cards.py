"""Cards that people own, by the names on their boxes: the catalogue's, AMD's, and those that share memory. Pure."""

import re
from typing import Final

import msgspec

from acestep.hardware.card import Card, CardKind
from acestep.hardware.card_sizes import CATALOGUE
from acestep.hardware.detection.apple import MPS_SHARE
from acestep.hardware.detection.families import capability_of
from acestep.units import GIB, gib_to_bytes

_GROUPS: Final = (
    ("GeForce RTX 50", r"rtx 50\d\d(?! ada)"),
    ("GeForce RTX 40", r"rtx 40\d\d(?! ada)"),
    ("GeForce RTX 30", r"rtx 30\d\d"),
    ("GeForce RTX 20, GTX 10 and 16", r"(gtx|titan) |rtx 20\d\d(?! ada)"),
    ("Intel Arc", r"arc "),
    ("NVIDIA RTX and Quadro", r"quadro |rtx "),
    ("NVIDIA data centre", r""),
)
"""Headings and the catalogue's names below them; the first that matches."""

AMD_CARDS: Final[dict[str, tuple[int, ...]]] = {
    "Radeon RX 6600 XT": (8,),
    "Radeon RX 6700 XT": (12,),
    "Radeon RX 6800 XT": (16,),
    "Radeon RX 7600": (8,),
    "Radeon RX 7600 XT": (16,),
    "Radeon RX 7700 XT": (12,),
    "Radeon RX 7800 XT": (16,),
    "Radeon RX 7900 XT": (20,),
    "Radeon RX 7900 XTX": (24,),
    "Radeon RX 9060 XT": (8, 16),
    "Radeon RX 9070": (16,),
    "Radeon RX 9070 XT": (16,),
}
"""Sizes in GB on the boxes of AMD's cards, from the maker's pages; their drivers report nearly all of it."""

_SHARING: Final = "Shares the main memory"

APPLE_GB: Final = (8, 16, 24, 32, 48, 64, 96, 128)
"""Usual main memories of Apple machines."""

_GB10_GIB: Final = 119.7
_RYZEN_AI_MAX_GIB: Final = 61.35
"""What CUDA and ROCm report of 128 GB of main memory (public logs; ROCm by default half of it)."""

_AS_WRITTEN: Final = {"ti": "Ti", "quadro": "Quadro", "ada": "Ada", "blackwell": "Blackwell", "arc": "Arc"}
"""Words of names that are not written in capitals."""


class RealCard(msgspec.Struct, frozen=True, kw_only=True):
    """A card under its heading: `label` is its name with the size on its box, as people say it."""

    group: str
    label: str
    card: Card


def real_cards() -> tuple[RealCard, ...]:
    """Return every known card, those of one heading together, the smallest size of a name first."""
    known = [_known(name, size) for name, sizes in CATALOGUE.items() for size in sizes]
    known.sort(key=lambda real: [group for group, _ in _GROUPS].index(real.group))
    amd = [_real("AMD Radeon", name, size, CardKind.ROCM) for name, sizes in AMD_CARDS.items() for size in sizes]
    return (*known, *amd, *_sharing())


def _known(name: str, size: int) -> RealCard:
    group = next(group for group, pattern in _GROUPS if re.match(pattern, name))
    kind = CardKind.XPU if name.startswith("arc ") else CardKind.CUDA
    written = " ".join(_written(word) for word in name.split())
    return _real(group, written if kind is CardKind.CUDA else written.replace("PRO", "Pro"), size, kind)


def _written(word: str) -> str:
    return _AS_WRITTEN.get(word, word.upper())


def _real(group: str, name: str, size: int, kind: CardKind) -> RealCard:
    capability = capability_of(name) if kind is CardKind.CUDA else (0, 0)
    card = Card(kind=kind, name=name, total_bytes=size * GIB, capability=capability)
    return RealCard(group=group, label=f"{name} {size} GB", card=card)


def _sharing() -> tuple[RealCard, ...]:
    """Return the processors with graphics: Apple's, NVIDIA's GB10 and AMD's Ryzen AI Max."""
    apple = [(f"Apple M, {size} GB", CardKind.MPS, "Apple M", MPS_SHARE * size) for size in APPLE_GB]
    others = [
        ("DGX Spark (GB10), 128 GB", CardKind.CUDA, "NVIDIA GB10", _GB10_GIB),
        ("Ryzen AI Max, 128 GB", CardKind.ROCM, "Radeon 8060S", _RYZEN_AI_MAX_GIB),
    ]
    return tuple(
        RealCard(
            group=_SHARING,
            label=label,
            card=Card(
                kind=kind,
                name=name,
                total_bytes=gib_to_bytes(size),
                capability=capability_of(name) if kind is CardKind.CUDA else (0, 0),
                unified=True,
            ),
        )
        for label, kind, name, size in (*apple, *others)
    )
