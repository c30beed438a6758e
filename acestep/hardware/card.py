"""A card: its kind, its size, and the card that is planned for. `acestep.hardware.detection` finds it."""

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card_sizes import BoxSize, box_of, rounded
from acestep.units import GIB, gib, gib_to_bytes

SIMULATED_CAPABILITY = (8, 6)
"""Compute capability of a simulated card: consumer Ampere, the most common in reports."""

CONTEXT_BYTES = GIB // 2
"""A round figure for the CUDA context of any card, for caps and free memory; `tiers/policy.json` has it by size."""

SMALLEST_CARD_BYTES = GIB
"""A card with less video memory cannot run the model."""

LARGEST_CARD_BYTES = 16 * 1024 * GIB
"""A source that claims more does not know the size."""

SIZE_LIMIT_GIB = 2**20
"""Larger than any card: larger byte counts are not exact integers in every JSON reader."""


class CardKind(StrEnum):
    """The platform that drives a card; `cpu` if there is none."""

    CUDA = "cuda"
    ROCM = "rocm"
    XPU = "xpu"
    MPS = "mps"
    CPU = "cpu"


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An accelerator, found or imagined. `capability` is (0, 0) where CUDA's numbering does not apply.

    A `unified` one has no memory of its own and shares the machine's. For an `imagined` one a user named the size.
    """

    kind: CardKind
    name: str
    uuid: str = ""
    total_bytes: int = 0
    capability: tuple[int, int] = (0, 0)
    driver: str = ""
    unified: bool = False
    imagined: bool = False

    def __post_init__(self) -> None:
        if self.total_bytes < 0:
            raise ValueError(f"total_bytes must be 0 or more, got {self.total_bytes}")

    @property
    def nameplate_gib(self) -> float:
        """The size on the card's box."""
        return self.box.gib

    @property
    def box(self) -> BoxSize:
        """The size on the card's box, and the rule that found it."""
        if self.imagined:
            # A real card, which has a UUID, under a limit: the size is not one that is sold.
            return rounded(self.total_bytes, recorded=not self.uuid)
        if self.unified or self.kind in (CardKind.MPS, CardKind.CPU):
            return rounded(self.total_bytes, recorded=False)
        return box_of(self.name, self.total_bytes)


CPU = Card(kind=CardKind.CPU, name="CPU")
"""The card of a machine without one."""


def nameplate_gib(total_bytes: int) -> float:
    """The size on the box, in GiB, of a card of which only the size is known; `card_sizes.rounded` is the rule."""
    return rounded(total_bytes).gib


def parse_size_gib(text: str, source: str) -> float:
    """Parse a size in GiB given by a user; raise `UsageError` naming its `source` for a size that no card can have."""
    with suppress(ValueError):
        size = float(text)
        if 0 < size < SIZE_LIMIT_GIB:
            return size
    raise UsageError(
        f"{source} must be a card's size in GiB, above 0 and below {SIZE_LIMIT_GIB}, such as 8, got {text!r}"
    )


def simulated_card(size_gib: float, kind: CardKind = CardKind.CUDA) -> Card:
    """A card of `size_gib` that exists only in a plan."""
    return Card(
        kind=kind,
        name=f"simulated {size_gib:g} GiB card",
        total_bytes=gib_to_bytes(size_gib),
        capability=SIMULATED_CAPABILITY if kind is CardKind.CUDA else (0, 0),
        imagined=True,
    )


def planning_card(environ: Mapping[str, str], detected: Card) -> Card:
    """Return the card to plan for: the detected one, or one of the size in `MAX_CUDA_VRAM` or `MAX_MPS_VRAM`."""
    for variable, kind in (("MAX_CUDA_VRAM", CardKind.CUDA), ("MAX_MPS_VRAM", CardKind.MPS)):
        if variable not in environ:
            continue
        size = parse_size_gib(environ[variable], variable)
        if detected.kind is not kind or gib_to_bytes(size) > detected.total_bytes:
            return simulated_card(size, kind)
        name = f"{detected.name} limited to {size:g} GiB"
        return msgspec.structs.replace(detected, name=name, total_bytes=gib_to_bytes(size), imagined=True)
    return detected


def cap_bytes(environ: Mapping[str, str], detected: Card) -> int | None:
    """Return the bytes that the allocator may hold under `MAX_CUDA_VRAM`; None without a cap.

    Raises `UsageError` for a size that is not larger than a CUDA context.
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


def card_line(card: Card) -> str:
    """A card's name and reported size."""
    if card.kind is CardKind.CPU:
        return "none found; the CPU computes"
    size, nameplate = gib(card.total_bytes), f"{card.nameplate_gib:.2f} GiB"
    size += "" if size == nameplate else f", sold as {card.nameplate_gib:g} GiB"
    size += ", shared with the machine" if card.unified else ""
    capability = f", compute capability {card.capability[0]}.{card.capability[1]}" if any(card.capability) else ""
    return f"{card.name} ({card.kind}, {size}{capability})"
