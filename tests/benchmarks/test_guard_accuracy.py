"""The guard against the simulator: never below it, and how far above; and the time of a prediction."""

import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import pytest

from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.limits.guard import COEFFICIENTS, Demand, predict, songs_at_once
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.memo import Regions
from calibrate.probes.simulated.memory_model import FORMATS
from calibrate.probes.simulated.prober import REGIONS, SimulatedProber, full_size
from calibrate.probes.simulated.sweep import WeightAllocations, cap_with, trace_denoise, weights_of

KNOWN: Final = Regions()
WHOLE = (Offload.NONE, Offload.CPU, Offload.CPU_DIT)
STREAMED = (Offload.STREAM, Offload.STREAM_ENCODERS)
"""Each demand is asked about in both formats, once with whole weights and once with streamed ones: four points."""

GOAL: Final = 0.05
"""How far over a prediction may be."""

GUIDED_GOAL: Final = 0.06
"""The same for guided variants: how many of guidance's tensors are small decides some MiB of a cap of 270."""


AT_ONCE: Final = partial(songs_at_once, free_bytes=10**6)


@cache
def _weights(variant: Variant, quantization: Quantization | None, offload: Offload) -> WeightAllocations:
    return weights_of(full_size(variant, quantization), offload)


def _held_back(draw: random.Random) -> Demand:
    """A request that the sweep does not hold."""
    songs, tokens = draw.randint(1, 8), draw.randint(60, 2305)
    frames = round(25 * draw.uniform(10, min(600, 2400 / songs)))
    return Demand(songs=songs, frames=frames, lyric_tokens=tokens - 1, text_tokens=0)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("variant", "demands"), [(Variant.TURBO, 100), (Variant.BASE, 25), (Variant.XL_TURBO, 25)])
def test_held_back_requests_are_predicted_from_above_and_closely(
    benchmark: Any, variant: Variant, demands: int
) -> None:
    model = SimulatedProber().memory_model(variant)
    draw = random.Random(27_182)  # noqa: S311 test cases, not secrets
    over: dict[str, list[float]] = {}

    def ask() -> None:
        for _ in range(demands):
            demand = _held_back(draw)
            for quantization in FORMATS:
                components, kernels = full_size(variant, quantization), CudaKernels(SIMULATED_CAPABILITY)
                trace = trace_denoise(components, quantization, demand, kernels, REGIONS, KNOWN)
                for offload in (draw.choice(WHOLE), draw.choice(STREAMED)):
                    cap = cap_with(trace, _weights(variant, quantization, offload))
                    knobs = Knobs(variant=variant, offload=offload, quantization=quantization)
                    way = f"{quantization or 'bf16'}, {'streamed' if offload in STREAMED else 'whole'}"
                    over.setdefault(way, []).append(predict(model, knobs, demand)["denoise"] / cap - 1)

    benchmark.pedantic(ask, rounds=1)
    what = f"simulating {4 * demands} held-back points of {variant}, predicted over"
    what += "".join(f"; {way}: {min(shares):+.1%} to {max(shares):+.1%}" for way, shares in over.items())
    benchmark.extra_info.update(what=what, ours_seconds=benchmark.stats.stats.min)
    print(f"\n{what}")  # noqa: T201
    for way, shares in over.items():
        assert min(shares) >= 0, way
        assert max(shares) <= (GOAL if variant.is_turbo else GUIDED_GOAL), way


@pytest.mark.parametrize(("what", "ask"), [("a prediction of the VRAM guard", predict), ("its songs at once", AT_ONCE)])
def test_a_prediction_takes_less_than_100_us(benchmark: Any, what: str, ask: Callable[..., object]) -> None:
    knobs = Knobs(offload=Offload.CPU_DIT)
    known = {f"none.cpu+dit.{name}": 1000.0 for name in COEFFICIENTS}
    demand = Demand(songs=8, frames=15_000, lyric_tokens=2_048, text_tokens=256)
    benchmark(ask, known, knobs, demand)
    benchmark.extra_info.update(what=what, ours_seconds=benchmark.stats.stats.median)
    assert benchmark.stats.stats.median < 100e-6
