"""The coefficients of the table in force, against the simulator on requests that they were not fitted to."""

import pytest

from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Quantization
from acestep.limits.guard import Demand, predict
from acestep.request import Request
from acestep.tiers import load_tiers
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.prober import REGIONS, full_size
from tests.denoise_caps import denoise_cap
from tests.some import first_of


@pytest.mark.parametrize(
    ("offload", "quantization", "songs", "seconds", "tokens"),
    first_of(
        [
            (Offload.CPU_DIT, None, 3, 205.0, 1500),
            (Offload.CPU_DIT, Quantization.INT8, 7, 131.0, 500),
            (Offload.CPU, Quantization.INT8, 2, 370.0, 2000),
            (Offload.NONE, None, 5, 43.0, 900),
            (Offload.STREAM, None, 4, 88.0, 600),
            (Offload.STREAM_ENCODERS, Quantization.INT8, 6, 240.0, 1400),
        ],
        4,
    ),
)
def test_the_guard_is_never_under_and_at_most_five_per_cent_over(
    offload: Offload, quantization: Quantization | None, songs: int, seconds: float, tokens: int
) -> None:
    knobs = Knobs(offload=offload, quantization=quantization)
    request = Request(caption="", batch=songs, duration_s=seconds, steps=2)
    demand = Demand(songs=songs, frames=request.latent_frames, lyric_tokens=tokens - 1, text_tokens=0)
    predicted = predict(load_tiers().variants[knobs.variant].memory_model, knobs, demand)
    assert predicted, "the table in force has no coefficients for the guard: run `python -m calibrate run` and merge"
    weights, kernels = full_size(knobs.variant, quantization), CudaKernels(SIMULATED_CAPABILITY)
    needed, _ = denoise_cap(weights, knobs, request, tokens, kernels, REGIONS)
    assert needed <= predicted["denoise"] <= 1.05 * needed
