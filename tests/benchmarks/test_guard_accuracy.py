"""The guard against the simulator: never under, and how far over; and how long a prediction takes."""

import random
from typing import Any

import pytest

from acestep.knobs import Knobs, Offload, Quantization
from acestep.memory.guard import COEFFICIENTS, Demand, predict, songs_at_once
from acestep.request import Request
from calibrate.probes.simulated.denoising import denoise_cap
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.prober import CAPABILITY, REGIONS, SimulatedProber, full_size

POINTS = 200


@pytest.fixture(scope="module")
def model() -> dict[str, float]:
    return SimulatedProber().memory_model(Knobs().variant)


def _held_back(draw: random.Random) -> tuple[Knobs, Demand, int]:
    """A request that the sweep does not hold, and the smallest cap that its denoising needs."""
    knobs = Knobs(offload=draw.choice(list(Offload)), quantization=draw.choice([None, Quantization.INT8]))
    songs = draw.randint(1, 8)
    request = Request(caption="", batch=songs, duration_s=draw.uniform(10, min(600, 2400 / songs)), steps=2)
    tokens = draw.randint(400, 2305)
    weights, kernels = full_size(knobs.variant, knobs.quantization), CudaKernels(CAPABILITY)
    cap, _ = denoise_cap(weights, knobs, request, tokens, kernels, REGIONS)
    return knobs, Demand(songs=songs, frames=request.latent_frames, lyric_tokens=tokens - 1, text_tokens=0), cap


@pytest.mark.timeout(3600)
def test_held_back_requests_are_not_predicted_too_small(benchmark: Any, model: dict[str, float]) -> None:
    draw = random.Random(2024)  # noqa: S311 test cases, not secrets
    over: dict[Offload, list[float]] = {offload: [] for offload in Offload}

    def ask() -> None:
        for _ in range(POINTS):
            knobs, demand, cap = _held_back(draw)
            over[knobs.offload].append(predict(model, knobs, demand)["denoise"] / cap - 1)

    benchmark.pedantic(ask, rounds=1)
    for offload, shares in over.items():
        benchmark.extra_info[offload.value] = (min(shares), max(shares))
        if offload in (Offload.NONE, Offload.CPU, Offload.CPU_DIT):
            assert 0 <= min(shares) <= max(shares) <= 0.05, offload


def test_a_prediction_takes_less_than_100_us(benchmark: Any) -> None:
    knobs = Knobs(offload=Offload.CPU_DIT)
    known = {f"none.cpu+dit.{name}": 1000.0 for name in COEFFICIENTS}
    demand = Demand(songs=8, frames=15_000, lyric_tokens=2_048, text_tokens=256)
    benchmark(songs_at_once, known, knobs, demand, 10**6)
    assert benchmark.stats["median"] < 100e-6
