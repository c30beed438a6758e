"""A virtual card as a value: its size, what its multiprocessors hold, and who else is on it."""

from enum import StrEnum
from typing import Final

import msgspec

MIB: Final = 1 << 20
GIB: Final = 1 << 30

UUID_HEAD: Final = "76697274-7561-6c00"
"""The word "virtual" in ASCII: every uuid begins with it, so that none can be taken for a real card's."""

DRIVER: Final = "virtual-580.65"


class System(StrEnum):
    """Whose driver it is. Windows has no flash attention in PyTorch, and lists no process's bytes."""

    LINUX = "linux"
    WINDOWS = "windows"


class Nvml(StrEnum):
    """How the library that tells about cards behaves."""

    WORKS = "works"
    MISSING = "missing"
    MISMATCHED = "mismatched"
    MUTE = "mute"


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """What the cards of one compute capability have. Sizes in bytes; from NVIDIA's table of compute capabilities.

    `matrix_library_bytes` is what cuBLAS takes outside PyTorch's allocator, as seen with its real library.
    """

    multiprocessors: int
    threads: int
    blocks: int
    shared_block: int
    shared_multiprocessor: int
    l2: int
    bus: int
    matrix_library_bytes: int = 10 * MIB


CHIPS: Final = {
    (7, 5): Chip(multiprocessors=36, threads=1024, blocks=16, shared_block=65_536, shared_multiprocessor=65_536,
                 l2=4 * MIB, bus=256),
    (8, 0): Chip(multiprocessors=108, threads=2048, blocks=32, shared_block=166_912, shared_multiprocessor=167_936,
                 l2=40 * MIB, bus=5120),
    (8, 6): Chip(multiprocessors=46, threads=1536, blocks=16, shared_block=101_376, shared_multiprocessor=102_400,
                 l2=4 * MIB, bus=256),
    (8, 9): Chip(multiprocessors=46, threads=1536, blocks=24, shared_block=101_376, shared_multiprocessor=102_400,
                 l2=36 * MIB, bus=192),
    (9, 0): Chip(multiprocessors=132, threads=2048, blocks=32, shared_block=232_448, shared_multiprocessor=233_472,
                 l2=50 * MIB, bus=5120, matrix_library_bytes=66 * MIB),
    (10, 0): Chip(multiprocessors=148, threads=2048, blocks=32, shared_block=232_448, shared_multiprocessor=233_472,
                  l2=126 * MIB, bus=8192, matrix_library_bytes=66 * MIB),
    (12, 0): Chip(multiprocessors=48, threads=1536, blocks=24, shared_block=101_376, shared_multiprocessor=102_400,
                  l2=48 * MIB, bus=192),
    (12, 1): Chip(multiprocessors=48, threads=1536, blocks=24, shared_block=101_376, shared_multiprocessor=102_400,
                  l2=24 * MIB, bus=256),
}  # fmt: skip
"""Cards that people have, by compute capability."""


class VirtualCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One card. Sizes are in bytes.

    `board_bytes` is the size on the box, of which the driver keeps `reserve_bytes`. A context takes `context_bytes` of
    each process, and others hold `others_bytes`. `slice_bytes` is the size of its MIG slice, 0 for a card that is not
    cut. `unified`: the card shares the main memory, and NVML does not know how much there is. `spill_bytes` may be
    allocated beyond the card, as Windows does it. `multiprocessors` is 0 for what the capability usually has.

    Raises `ValueError` for a card that there cannot be.
    """

    capability: tuple[int, int] = (8, 6)
    board_bytes: int = 8 * GIB
    name: str = ""
    reserve_bytes: int = 250 * MIB
    context_bytes: int = 300 * MIB
    others_bytes: int = 0
    multiprocessors: int = 0
    slice_bytes: int = 0
    spill_bytes: int = 0
    unified: bool = False

    def __post_init__(self) -> None:
        if self.capability not in CHIPS:
            known = ", ".join(f"{major}.{minor}" for major, minor in CHIPS)
            major, minor = self.capability
            raise ValueError(f"a virtual card has one of the capabilities {known}, got {major}.{minor}")
        if self.name and not self.name.startswith("Virtual"):
            raise ValueError(f'the name of a virtual card starts with "Virtual", got {self.name!r}')
        sizes = ("reserve_bytes", "context_bytes", "others_bytes", "slice_bytes", "spill_bytes", "multiprocessors")
        for field in sizes:
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be 0 or more, got {getattr(self, field)}")
        if self.reserve_bytes >= self.board_bytes:
            raise ValueError(f"the driver keeps {self.reserve_bytes} bytes of a card of {self.board_bytes}")
        if self.slice_bytes > self.board_bytes - self.reserve_bytes:
            raise ValueError(f"a slice of {self.slice_bytes} bytes does not fit on a card of {self.board_bytes}")

    @property
    def total_bytes(self) -> int:
        """What CUDA calls the total memory."""
        return self.slice_bytes or self.board_bytes - self.reserve_bytes

    @property
    def shown_name(self) -> str:
        """The name that CUDA and NVML show."""
        major, minor = self.capability
        return self.name or f"Virtual {self.board_bytes / GIB:g} GiB card {major}.{minor}"


def card_lines(card: VirtualCard, index: int, system: System) -> list[str]:
    """What the library reads about one card: a key and a value a line."""
    chip = CHIPS[card.capability]
    major, minor = card.capability
    values: dict[str, object] = {
        "name": card.shown_name,
        "uuid": f"GPU-{UUID_HEAD}-0000-00000000{major:02x}{minor:01x}{index:01x}",
        "slice_uuid": f"MIG-{UUID_HEAD}-0001-00000000{major:02x}{minor:01x}{index:01x}",
        "major": major,
        "minor": minor,
        "multiprocessors": card.multiprocessors or chip.multiprocessors,
        "threads_per_multiprocessor": chip.threads,
        "blocks_per_multiprocessor": chip.blocks,
        "shared_bytes_per_block": chip.shared_block,
        "shared_bytes_per_multiprocessor": chip.shared_multiprocessor,
        "l2_bytes": chip.l2,
        "bus_width": chip.bus,
        "board_bytes": card.board_bytes,
        "reserve_bytes": card.reserve_bytes,
        "slice_bytes": card.slice_bytes,
        "spill_bytes": card.spill_bytes,
        "context_bytes": card.context_bytes,
        "matrix_library_bytes": chip.matrix_library_bytes,
        "unified": int(card.unified),
        "lists_bytes": int(system is System.LINUX),
    }
    return ["card", *(f"{key} {value}" for key, value in values.items())]
