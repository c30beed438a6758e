"""The compute capability of an NVIDIA card of which only the name is known, and whether it has memory of its own."""

import re
from typing import Final

from acestep.hardware.card import SIMULATED_CAPABILITY

_FAMILIES: Final = (
    (r"\bblackwell\b", (12, 0)),
    (r"\bada\b", (8, 9)),
    (r"\bk80\b", (3, 7)),
    (r"\b(gtx? 7(45|50)|gtx [89][56]0m|8[34]\d[ma]|9[34]\d(m|mx|a)|920mx|mx1[13]0|m10)\b", (5, 0)),
    (r"quadro (k(620|1200|2200)|m([56][02]0|1[02]00)m?|m2000m)\b", (5, 0)),
    (r"tesla k\d|\bk40\b|quadro k\d|gtx? [67]\d\dm?\b|gtx 8[78]0m\b|gtx titan( black| z)?$|\b9[12]0m\b", (3, 5)),
    (r"gtx (9\d\dm?|titan x)\b|tesla m\d|quadro m\d|\bm(4|6|40|60)\b", (5, 2)),
    (r"p100[a-z]*\b", (6, 0)),
    (r"gtx? 10\d\d\b|titan xp?\b|tesla p\d|\bp(4|6|40|10[246]-\d+)\b|quadro p\d|mx1\d\d|mx[23]\d\d", (6, 1)),
    (r"v100[a-z]*\b|titan v\b", (7, 0)),
    (r"\bxavier\b", (7, 2)),
    (r"rtx 2050\b|mx570\b|cmp [79]0hx", (8, 6)),
    (
        r"gtx 16\d\d\b|rtx 20\d\d\b|titan rtx|quadro rtx|\brtx ?[68]000p?\b|\bt(4g?|\d{3,4})\b|mx[45]50|cmp [345]0hx",
        (7, 5),
    ),
    (r"(a100|\ba30|\ba800)[a-z]*\b|cmp 170hx", (8, 0)),
    (r"rtx 30\d\d\b|rtx ?a\d|\ba(2|10|16|40)[a-z]*\b", (8, 6)),
    (r"\borin\b", (8, 7)),
    (r"rtx 40\d\d\b|\bl(2|4|20|40)[a-z]*\b", (8, 9)),
    (r"h(100|200|20|800)[a-z]*\b", (9, 0)),
    (r"\bg?b300[a-z]*\b", (10, 3)),
    (r"\bg?b[12]00[a-z]*\b", (10, 0)),
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
