"""Events per second of the allocator model; run with `pytest --benchmark-only -s tests/benchmarks`."""

import random
from typing import Any

import pytest

from acestep.units import KIB, MIB
from calibrate.probes.simulated.loops import Loop, find_loops
from calibrate.probes.simulated.replay import replay
from calibrate.probes.simulated.trace import Trace

TURNS = 60


def layers() -> Trace:
    """Weights that stay, then many repetitions of one layer: most blocks are freed soon, last in, first out."""
    draw = random.Random(7)  # noqa: S311 a fixed stream, nothing secret
    trace = Trace()
    for _ in range(300):
        trace.alloc(draw.choice((4, 8, 24)) * MIB, "weights")
    sizes = [draw.choice((512, 4 * KIB, 600 * KIB, 3 * MIB, 5 * MIB, 12 * MIB, 40 * MIB)) for _ in range(1200)]
    for _ in range(TURNS):
        live: list[int] = []
        for n_bytes in sizes:
            live.append(trace.alloc(n_bytes))
            if len(live) > 8:
                trace.free(live.pop(n_bytes % 3 - 3))
        for block in live:
            trace.free(block)
    return trace


@pytest.mark.parametrize("skipping", [False, True], ids=["every event", "loops skipped"])
def test_replay_speed(benchmark: Any, skipping: bool) -> None:
    trace = layers()
    loops: tuple[Loop, ...] = find_loops(trace) if skipping else ()
    result = benchmark(replay, trace, loops=loops)
    assert result.fits
    rate = len(trace) / benchmark.stats.stats.min
    benchmark.extra_info["events_per_second"] = round(rate)
    print(f"\n{len(trace)} events, {rate / 1e6:.2f} million a second")  # noqa: T201
