"""The guard's sweep traces less than a run does, and finds the same caps."""

import pytest

from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Quantization
from acestep.limits.guard import Demand
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.memo import Regions
from calibrate.probes.simulated.prober import REGIONS, full_size
from calibrate.probes.simulated.sweep import cap_with, request_for, trace_denoise, weights_of
from tests.denoise_caps import denoise_cap


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
@pytest.mark.parametrize("offload", [Offload.NONE, Offload.CPU_DIT, Offload.STREAM])
def test_a_stage_of_two_layers_with_all_weights_needs_what_the_whole_stage_does(
    quantization: Quantization | None, offload: Offload
) -> None:
    demand = Demand(songs=3, frames=1075, lyric_tokens=499, text_tokens=0)
    components = full_size(Knobs().variant, quantization)
    knobs, request = Knobs(offload=offload, quantization=quantization), request_for(demand)
    trace = trace_denoise(components, quantization, demand, CudaKernels(SIMULATED_CAPABILITY), REGIONS, Regions())
    whole, resting = denoise_cap(components, knobs, request, demand.tokens, CudaKernels(SIMULATED_CAPABILITY), REGIONS)
    weights = weights_of(components, offload)
    assert cap_with(trace, weights) == whole
    assert sum(weights.resting) == resting
