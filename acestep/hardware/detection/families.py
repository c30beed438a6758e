"""The compute capability of an NVIDIA card of which only the name is known, and whether it has memory of its own."""

import re
from typing import Final

from acestep.hardware.card import SIMULATED_CAPABILITY

_FAMILIES: Final = (
    (r"\bblackwell\b", (12, 0)),
    (r"\bada\b", (8, 9)),
    (r"tesla k\d|\bk[48]0\b|quadro k\d|gtx? [67]\d\d\b", (3, 5)),
    (r"gtx (9\d\d|titan x)\b|tesla m\d|quadro m\d|\bm[46]0\b", (5, 2)),
    (r"p100\b", (6, 0)),
    (r"gtx? 10\d\d\b|titan xp?\b|tesla p\d|\bp40?\b|quadro p\d|mx1\d\d|mx[23]\d\d", (6, 1)),
    (r"v100\b|titan v\b|gv100", (7, 0)),
    (r"\bxavier\b", (7, 2)),
    (r"rtx 2050\b|mx570\b", (8, 6)),
    (
        r"gtx 16\d\d\b|rtx 20\d\d\b|titan rtx|quadro rtx|\brtx ?[68]000\b|tesla t4|\bt4g?\b|\bt\d{3,4}\b|mx[45]50",
        (7, 5),
    ),
    (r"a100d?\b|a30\b|a800\b", (8, 0)),
    (r"rtx 30\d\d\b|rtx ?a\d|\ba(2|10[gm]?|16|40)\b", (8, 6)),
    (r"\borin\b", (8, 7)),
    (r"rtx 40\d\d\b|\bl(2|4|20|40s?)\b", (8, 9)),
    (r"h100\b|h200\b|h20\b|h800\b|gh200\b", (9, 0)),
    (r"\bb[123]00\b|gb[23]00\b", (10, 0)),
    (r"\bthor\b", (11, 0)),
    (r"rtx 50\d\d\b", (12, 0)),
    (r"\bgb10\b", (12, 1)),
)
"""Patterns in lower-case names, and the capability of those cards (developer.nvidia.com/cuda/gpus)."""

_SHARING: Final = re.compile(r"\b(gb10|orin|thor|xavier|tegra|nvgpu)\b")
"""Names of NVIDIA's processors with graphics, which share the main memory: DGX Spark and Jetson."""


def capability_of(name: str) -> tuple[int, int]:
    """Return the capability of the family that a name belongs to; that of simulated cards for an unknown name."""
    lowered = name.lower()
    return next((found for pattern, found in _FAMILIES if re.search(pattern, lowered)), SIMULATED_CAPABILITY)


def shares_memory(name: str) -> bool:
    """Return whether the card of a name has no memory of its own."""
    return bool(_SHARING.search(name.lower()))


def machine_bytes() -> int:
    """Return the main memory, which is the size of a card that shares it."""
    # Read only here, because few boards share the main memory and every command detects cards.
    from acestep.hardware.host import host_memory

    return host_memory().total_bytes
