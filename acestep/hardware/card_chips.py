"""Which chip, in which form, the name of a card means: cards of one number differ in speed. Pure.

`card_sizes.card_model` leaves the form out, because cards of one model share the sizes on their boxes.
"""

import re
from functools import lru_cache
from typing import Final

from acestep.hardware.card_sizes import GIGABYTES, TRADE_MARKS, catalogued, sizes_in

LAPTOP_SIZES: Final[dict[str, tuple[int, ...]]] = {
    "rtx 3050": (4,),
    "rtx 3050 ti": (4,),
    "rtx 3060": (6,),
    "rtx 3080": (8, 16),
    "rtx 3080 ti": (16,),
    "rtx 4050": (6,),
    "rtx 4070": (8,),
    "rtx 4080": (12,),
    "rtx 4090": (16,),
    "rtx 5070": (8,),
    "rtx 5070 ti": (12,),
    "rtx 5090": (24,),
}
"""Sizes in GB that only laptops have of a GeForce card: such a name is a laptop's without that word too."""

_SPELLINGS: Final = (
    (TRADE_MARKS, " "),
    (r"-", " "),
    (r"\b(rtx|gtx)(?=\d)", r"\1 "),
    (r"(?<=\d)(?=(ti|super|tisuper)\b)", " "),
    (r"\btisuper\b", "ti super"),
    (r"\blaptop gpu\b|\bmobile\b", " laptop "),
    (r"\b(with )?max q( design)?\b", " maxq "),
    (r"\bpci\b", " pcie "),
    # What a card has unless its name says another form.
    (r"\bworkstation edition\b|\bsxm\d?\b|\bhbm\d?e?\b", " "),
    # The numbers of RTX PRO cards are all of one generation, whose name may be left out.
    (r"(?<=\bpro )(\d+) blackwell\b", r"\1"),
    (r"\b(nvidia|geforce|tesla|graphics|gpu|generation|edition)\b", " "),
    (GIGABYTES, " "),
    # The number of a GeForce card alone, as people say it.
    (r"^ *(?=1[06][3-8]0\b)", "gtx "),
    (r"^ *(?=[2-5]0[5-9]0\b)", "rtx "),
)
"""Patterns in a lower-case name, and what stands for them: first other spellings, then what all forms share."""


@lru_cache(maxsize=1024)
def chip_of(name: str, size_gib: float | None = None) -> frozenset[str]:
    """Return the words that make out a chip and its form, such as {"rtx", "4070", "ti", "super"}.

    They are equal for all spellings of one card: as its driver, PyTorch or a person writes it. `size_gib` is the size
    on its box, which the name may have too: a desktop's name with a laptop's size is the laptop.
    """
    spelled = name.lower()
    for pattern, instead in _SPELLINGS:
        spelled = re.sub(pattern, instead, spelled)
    words = spelled.split()
    model = " ".join(words)
    sizes = (round(size_gib),) if size_gib is not None else sizes_in(name) or catalogued(model)
    if sizes and set(sizes) <= set(LAPTOP_SIZES.get(model, ())):
        words.append("laptop")
    return frozenset(words)


def is_same_card(listed: str, listed_gib: float | None, name: str, size_gib: float) -> bool:
    """Return whether a card of a name and of a size on its box is the one that a list calls `listed`, of `listed_gib`.

    None is of a list without sizes: there a name that says none itself means every size of its chip.
    """
    sizes = sizes_in(listed) if listed_gib is None else (round(listed_gib),)
    return chip_of(listed, listed_gib) == chip_of(name, size_gib) and (not sizes or round(size_gib) in sizes)


def is_laptop(name: str) -> bool:
    """Return whether a name is that of a laptop's card: before the RTX 30, Max-Q was a laptop's too."""
    chip = chip_of(name)
    return "laptop" in chip or ("maxq" in chip and "pro" not in chip)


def numbers_of(name: str) -> frozenset[str]:
    """Return the numbers in a name without its size, which cards of one family share, such as {"4090"} and {"l40"}."""
    return frozenset(re.sub(r"(?<=\d)[a-z]+$", "", word) for word in chip_of(name) if re.search(r"\d", word))
