"""The memory that denoising reserves is enough for its steps, only slightly larger, and freed afterwards."""

import random
from collections.abc import Sequence

import pytest

from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Quantization, Variant
from acestep.limits.guard import Demand
from acestep.limits.workspace import SMALL_LIMIT
from acestep.memory.placement import Placement
from acestep.units import MIB
from calibrate.probes.simulated import sweep
from calibrate.probes.simulated.allocator import CachingAllocator
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.memo import Regions
from calibrate.probes.simulated.prober import REGIONS, full_size
from calibrate.probes.simulated.trace import ASK, EMPTY, FREE, Trace
from tests.some import first_of

TURING = (7, 5)
"""A compute capability whose attention wants keys and values repeated for all heads."""

WAYS = [
    (Variant.TURBO, None, SIMULATED_CAPABILITY),
    (Variant.TURBO, Quantization.INT8, SIMULATED_CAPABILITY),
    (Variant.TURBO, None, TURING),
    (Variant.BASE, None, SIMULATED_CAPABILITY),
    (Variant.XL_TURBO, None, SIMULATED_CAPABILITY),
    (Variant.XL_BASE, Quantization.INT8, SIMULATED_CAPABILITY),
]


def _demands(seed: int) -> list[Demand]:
    """A song, a few short ones, many long ones and very many, of odd lengths; a cover that is followed partly.

    All of them for the first way, half of them, drawn, for each of the others.
    """
    draw = random.Random(seed)  # noqa: S311 test cases, not secrets
    shapes = [
        (1, draw.randint(2_000, 15_000)),
        (draw.randint(2, 5), draw.randint(300, 2_000)),
        (8, 7_000),
        (16, 1_404),
        (55, 504),
    ]
    found = [
        Demand(songs=songs, frames=frames, lyric_tokens=draw.randint(100, 2_000), text_tokens=99)
        for songs, frames in shapes
    ]
    weak = Demand(songs=2, frames=1_501, lyric_tokens=500, text_tokens=9, weak_cover=True, with_audio=True)
    every = [*found, weak]
    return draw.sample(every, len(every) // 2) if seed else every


def _traced(variant: Variant, quantization: Quantization | None, capability: tuple[int, int], demand: Demand) -> Trace:
    kernels = CudaKernels(capability)
    return sweep.trace_denoise(full_size(variant, quantization), quantization, demand, kernels, REGIONS, Regions())


@pytest.mark.parametrize("way", first_of(range(len(WAYS)), 3))
def test_the_steps_fit_in_the_reserved_block_and_fill_it(way: int) -> None:
    fit_and_fill(way, _demands(way))


@pytest.mark.parametrize("way", first_of([WAYS.index(way) for way in WAYS if not way[0].is_turbo], 1))
def test_so_they_do_where_all_passes_of_a_step_go_together(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placement, "streams", lambda *_: True)
    fit_and_fill(way, _demands(0))


def fit_and_fill(way: int, demands: Sequence[Demand]) -> None:
    """Whether nothing of the steps takes memory beside the reserved block, and most of it is used."""
    variant, quantization, capability = WAYS[way]
    for demand in demands:
        trace = _traced(variant, quantization, capability, demand)
        allocator, blocks = CachingAllocator(), {}
        room_at, room = _room(trace)
        taken = outside = most = 0
        for event, (size, slot) in enumerate(zip(trace.sizes, trace.slots, strict=True)):
            if size == FREE:
                allocator.free(blocks.pop(slot))
            if size >= 0:
                before = allocator.reserved
                blocks[slot] = allocator.malloc(size)
                if event > room_at and size > SMALL_LIMIT:
                    taken += allocator.reserved - before
            if size == EMPTY and event < room_at:
                allocator.empty_cache()
            if event == room_at:
                outside = allocator.allocated - room
            elif event > room_at:
                most = max(most, allocator.allocated - outside)
        assert taken == 0, f"{demand}: {taken / MIB:.0f} MiB did not fit into {room / MIB:.0f} MiB of room"
        assert most >= 0.75 * room, f"{demand}: {room / MIB:.0f} MiB of room for {most / MIB:.0f} MiB"


def _room(trace: Trace) -> tuple[int, int]:
    """Event and bytes of the allocation after the weights that is freed at once."""
    weights = trace.owner_names.index("transformer")
    at = 1 + max(event for event, whose in enumerate(trace.owners) if whose == weights and trace.sizes[event] >= 0)
    if ASK in trace.sizes[at : at + 2]:
        # It was tried whether the passes of a step can go together, and the trial was given back.
        at += 5
    assert (trace.sizes[at + 1], trace.slots[at + 1]) == (FREE, trace.slots[at])
    return at, trace.sizes[at]


def test_the_reserved_block_is_free_after_the_weights() -> None:
    demand = Demand(songs=4, frames=3_000, lyric_tokens=900, text_tokens=99, weak_cover=True, with_audio=True)
    trace = _traced(Variant.TURBO, None, SIMULATED_CAPABILITY, demand)
    allocator, blocks = CachingAllocator(), {}
    room_at, room = _room(trace)
    for event, (size, slot) in enumerate(zip(trace.sizes, trace.slots, strict=True)):
        if size >= 0:
            blocks[slot] = allocator.malloc(size)
        elif size == FREE:
            allocator.free(blocks.pop(slot))
        elif size == EMPTY and event > room_at:
            allocator.empty_cache()
            assert allocator.reserved < room, "the cache is emptied while something still lies in the room"
            break
    else:
        pytest.fail("the cache is never emptied")
