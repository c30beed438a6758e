"""The size on a card's box, from what the card reports: a catalogue of names first, then two rules. Pure.

A card reports less than its box says, and how much less depends on the source: NVML includes the driver's own memory,
CUDA does not. Cards with error correction in their memory (T4, A10G, L4) report up to a ninth less.
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from acestep.units import GIB, ceil_div

SHORTFALL_HUNDREDTHS: Final = 55
"""A size within 0.55 GiB below a whole number is that number: the RTX 6000 with 24 GB reports 23.46 to CUDA."""

SHORTFALL_SHARE: Final = 0.065
"""Or within 6.5 % of it where that is less: 6 GB cards report 5.61 to CUDA, 8 GB cards 7.53."""

LEAST_SHARE: Final = 0.88
"""No card that is known reports less than this share of its box."""

REAL_SHORTFALL_GIB: Final = 0.66
"""The most that a real card's driver keeps: 0.64 of the 32 GiB of an RTX 5090 (31.36 to CUDA)."""

REAL_SHARE: Final = 0.10
"""Or this share of the box where that is less: cards of 4 GB report 3.63 to CUDA under newer drivers."""

BOXES_GIB: Final = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    10,
    11,
    12,
    16,
    20,
    22,
    24,
    32,
    36,
    40,
    48,
    64,
    80,
    94,
    96,
    128,
    141,
    180,
    192,
    288,
)
"""Sizes that cards are sold in; 5 is the smallest slice of an A100."""

CATALOGUE: Final[dict[str, tuple[int, ...]]] = {
    "gtx 1650": (4,),
    "gtx 1060": (3, 6),
    "gtx 1070": (8,),
    "gtx 1080": (8,),
    "gtx 1080 ti": (11,),
    "gtx 1660": (6,),
    "gtx 1660 ti": (6,),
    "rtx 2060": (6, 12),
    "rtx 2070": (8,),
    "rtx 2080": (8,),
    "rtx 2080 ti": (11, 22),
    "rtx 3050": (4, 6, 8),
    "rtx 3050 ti": (4,),
    "rtx 3060": (6, 8, 12),
    "rtx 3060 ti": (8,),
    "rtx 3070": (8,),
    "rtx 3070 ti": (8,),
    "rtx 3080": (8, 10, 12, 16),
    "rtx 3080 ti": (12, 16),
    "rtx 3090": (24,),
    "rtx 3090 ti": (24,),
    "rtx 4050": (6,),
    "rtx 4060": (8,),
    "rtx 4060 ti": (8, 16),
    "rtx 4070": (8, 12),
    "rtx 4070 ti": (12,),
    "rtx 4080": (12, 16),
    "rtx 4090": (16, 24, 48),
    "rtx 5050": (8,),
    "rtx 5060": (8,),
    "rtx 5060 ti": (8, 16),
    "rtx 5070": (8, 12),
    "rtx 5070 ti": (12, 16),
    "rtx 5080": (16,),
    "rtx 5090": (24, 32),
    "titan rtx": (24,),
    "quadro rtx 4000": (8,),
    "quadro rtx 5000": (16,),
    "quadro rtx 6000": (24,),
    "quadro rtx 8000": (48,),
    "rtx a500": (4,),
    "rtx a1000": (4, 6, 8),
    "rtx a2000": (4, 6, 8, 12),
    "rtx a3000": (6, 12),
    "rtx a4000": (8, 16),
    "rtx a4500": (16, 20),
    "rtx a5000": (16, 24),
    "rtx a5500": (16, 24),
    "rtx a6000": (48,),
    "rtx 2000 ada": (8, 16),
    "rtx 4000 ada": (12, 20),
    "rtx 4500 ada": (24,),
    "rtx 5000 ada": (16, 32),
    "rtx 6000 ada": (48,),
    "rtx pro 4000 blackwell": (16, 24),
    "rtx pro 4500 blackwell": (32,),
    "rtx pro 5000 blackwell": (24, 48, 72),
    "rtx pro 6000 blackwell": (96,),
    "k80": (12,),
    "m40": (12, 24),
    "m60": (8,),
    "p4": (8,),
    "p40": (24,),
    "p100": (12, 16),
    "v100": (16, 32),
    "t4": (16,),
    "t4g": (16,),
    "a2": (16,),
    "a10": (24,),
    "a10g": (24,),
    "a16": (16,),
    "a30": (24,),
    "a40": (48,),
    "a100": (40, 80),
    "l2": (24,),
    "l4": (24,),
    "l20": (48,),
    "l40": (48,),
    "l40s": (48,),
    "h100": (80, 94, 96),
    "h20": (96, 141),
    "h200": (141,),
    "b200": (180, 192),
    "arc a310": (4,),
    "arc a350m": (4,),
    "arc a370m": (4,),
    "arc a380": (6,),
    "arc a550m": (8,),
    "arc a580": (8,),
    "arc a730m": (12,),
    "arc a750": (8,),
    "arc a770": (8, 16),
    "arc a770m": (16,),
    "arc b570": (10,),
    "arc b580": (12,),
    "arc pro b50": (16,),
    "arc pro b60": (24,),
    "arc pro b65": (32,),
    "arc pro b70": (32,),
}
"""Sizes in GB on the boxes of cards of one name, smallest first, from the makers' pages; laptop cards stand with
the desktop cards of their name. A card's name is brought into this form by `_plain`."""

RECORDED: Final[dict[int, int]] = {
    363: 4,
    368: 4,
    1456: 16,
    1457: 16,
    1458: 16,
    1474: 16,
    1475: 16,
    1476: 16,
    2203: 24,
    2204: 24,
    2205: 24,
    2206: 24,
    2249: 24,
    3136: 32,
    3137: 32,
}
"""Sizes in 0.01 GiB that only cards of one box size report, from public logs: cards with error correction, and two
more.
"""

GIGABYTES: Final = r"(?<![\w.])(\d+) ?gb?\b(?!\.\d)"
"""A size in a lower-case name: "24gb", "24 gb" or "24g", but not the "3g" of the slice "mig 3g.40gb"."""

TRADE_MARKS: Final = r"\((r|tm)\)|[®™()]"
"""Signs of trade marks in a lower-case name, and parentheses."""

_NOISE: Final = (
    r"\b(nvidia|geforce|tesla|intel|graphics|laptop( gpu)?|gpu|generation|workstation edition|server edition"
    r"|max-q( workstation edition)?|with max-q design|mobile|super|sff|pcie?|sxm\d?\d?|nvl|hbm\d?e?)\b"
    rf"|{GIGABYTES}|{TRADE_MARKS}"
)
_SHARE: Final = r"-(\d+)[abcq]\b"
"""The end of the name of a virtual GPU, such as "GRID T4-8Q"."""
_SLICE: Final = r"\bmig \S*?\d+g\.(\d+)gb"


class SizeRule(StrEnum):
    """The source of a size on a box."""

    CATALOGUE = "catalogue"
    NAME = "name"
    DRIVER = "driver reserve"
    ROUNDING = "rounding"
    AS_REPORTED = "as reported"


class BoxSize(msgspec.Struct, frozen=True, kw_only=True):
    """A size on a box in GiB, and the rule that found it."""

    gib: float
    rule: SizeRule


def rounded(total_bytes: int, *, recorded: bool = True) -> BoxSize:
    """Return the box of any reported size, also one that a user typed; `recorded` uses the logs of real cards too.

    Within 0.55 GiB below a whole number, or 6.5 % of it where that is less, and after rounding to 0.01 GiB, a size is
    that number; a size that logs of real cards show is the box of those cards; any other size is itself.
    """
    hundredths = (total_bytes * 200 + GIB) // (2 * GIB)
    if recorded and hundredths in RECORDED:
        return BoxSize(gib=float(RECORDED[hundredths]), rule=SizeRule.CATALOGUE)
    whole = ceil_div(hundredths, 100)
    if whole * 100 - hundredths <= min(SHORTFALL_HUNDREDTHS, SHORTFALL_SHARE * 100 * whole):
        exact = total_bytes == whole * GIB
        return BoxSize(gib=float(whole), rule=SizeRule.AS_REPORTED if exact else SizeRule.ROUNDING)
    return BoxSize(gib=total_bytes / GIB, rule=SizeRule.AS_REPORTED)


@lru_cache(maxsize=256)
def box_of(name: str, total_bytes: int) -> BoxSize:
    """Return the box of a real card of this name with its own memory, which reports `total_bytes` to NVML or CUDA.

    First its own name, if it contains a size or the catalogue has it; then what drivers keep; then rounding.
    """
    size = total_bytes / GIB
    for rule, boxes in ((SizeRule.NAME, sizes_in(name)), (SizeRule.CATALOGUE, catalogued(name))):
        fitting = [box for box in boxes if LEAST_SHARE * box <= size <= box * 1.005]
        if fitting:
            return BoxSize(gib=float(min(fitting, key=lambda box: (box < size - 0.01, abs(box - size)))), rule=rule)
    box = next((box for box in BOXES_GIB if size <= box), 0)
    reserve = round(box - size, 2)
    if box and 0 < reserve <= min(REAL_SHORTFALL_GIB, REAL_SHARE * box):
        return BoxSize(gib=float(box), rule=SizeRule.DRIVER)
    return rounded(total_bytes)


def catalogued(name: str) -> tuple[int, ...]:
    """The sizes in GB that cards of a name are sold in, smallest first; empty for a name that is not known."""
    return CATALOGUE.get(_plain(name), ())


def card_model(name: str) -> tuple[str, int]:
    """The model of a card as the catalogue spells it, and the size in GB of a slice of it, which is 0 for a whole card.

    Two names of one model differ only in what the catalogue leaves out, such as the maker, the form or the memory.
    """
    part = re.search(_SLICE, name.lower())
    return _plain(re.split(r"\bmig\b", name, maxsplit=1, flags=re.IGNORECASE)[0]), int(part[1]) if part else 0


def _plain(name: str) -> str:
    """A name as the catalogue spells it: lower case, without maker, form and memory."""
    spaced = name.lower().replace("-", " ").replace("max q", "max-q")
    return " ".join(re.sub(_NOISE, " ", spaced).split())


def sizes_in(name: str) -> tuple[int, ...]:
    """The size that a name itself says, such as "A100-SXM4-40GB", "MIG 1g.5gb" and "A10-12Q"."""
    lowered = name.lower()
    if part := re.search(_SLICE, lowered):
        return (int(part[1]),)
    if part := re.search(_SHARE, lowered):
        return (int(part[1]),)
    return tuple(int(size) for size in re.findall(GIGABYTES, lowered.replace("-", " ")))
