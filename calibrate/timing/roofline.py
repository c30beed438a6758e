"""From work to seconds: each kind of kernel is as slow as its arithmetic or its memory, plus the start of each kernel.

The shares of the peaks were fitted to public timings of an RTX 3090 and an RTX PRO 6000; BENCHMARK.md compares the
result with them.
"""

from typing import Final

import msgspec

from acestep.song_times import FASTEST, SLOWEST
from calibrate.probes.work import KernelSums, Work, WorkTotals
from calibrate.timing.cards import CardSpeed

PRODUCTS_SHARE: Final = 0.54
CONVOLUTIONS_SHARE: Final = 0.78
ATTENTION_SHARE: Final = 0.55
"""Of the peak rate of matrix products."""

MEMORY_SHARE: Final = 0.73
BUS_SHARE: Final = 0.80
"""Of the peaks of the card's memory and of its bus, the latter for page-locked memory."""

LAYOUT_COPIES: Final = 1.2
"""How many times the bytes of a convolution cross the memory, with cuDNN's copies in another layout."""

LM_LAUNCHES: Final = 4 / 3
"""How much longer the start of a kernel of the language model takes: they are so short that the host decides."""

VLLM_MEMORY_SHARE: Final = 0.80
VLLM_STEP_S: Final = 1.2e-3
"""vLLM replays a whole step as one graph: what it reads of the memory's peak rate, and the fixed time of a step."""


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """An estimated time and its range."""

    likely: float
    least: float
    most: float

    @classmethod
    def around(cls, likely: float) -> "Seconds":
        """The range around an estimate."""
        return cls(likely=round(likely, 3), least=round(FASTEST * likely, 3), most=round(SLOWEST * likely, 3))


def work_seconds(work: Work, card: CardSpeed, *, launches: bool = True, overlaps: bool = False) -> float:
    """Return the seconds of some work on a card, with or without the time that starting its kernels takes.

    What crosses the bus is added, or hidden behind the computation where it `overlaps`.
    """
    launch_s = card.launch_s if launches else 0.0
    rate, memory = card.tflops * 1e12, card.memory_gbs * 1e9 * MEMORY_SHARE

    def kernels(sums: KernelSums, share: float, copies: float = 1.0) -> float:
        return max(sums.flops / (rate * share), copies * sums.moved_bytes / memory) + launch_s * sums.launches

    computing = (
        kernels(work.products, PRODUCTS_SHARE)
        + kernels(work.convolutions, CONVOLUTIONS_SHARE, LAYOUT_COPIES)
        + kernels(work.attention, ATTENTION_SHARE)
        + kernels(work.others, 1.0)
    )
    moving = work.transferred_bytes / (card.bus_gbs * 1e9 * BUS_SHARE)
    return max(computing, moving) if overlaps else computing + moving


def totals_seconds(work: WorkTotals, card: CardSpeed) -> float:
    """Return about the seconds of some work of which only the sums over all kinds of kernels are known."""
    computing = max(
        work.flops / (card.tflops * 1e12 * PRODUCTS_SHARE), work.memory_bytes / (card.memory_gbs * 1e9 * MEMORY_SHARE)
    )
    return computing + card.launch_s * work.launches + work.transferred_bytes / (card.bus_gbs * 1e9 * BUS_SHARE)
