"""Promises that `make test` looks at in a few cases, here in many."""

from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch

from acestep.checkpoints.build import build
from acestep.dit.attention import Kernels
from acestep.dit.compiled import compiled
from acestep.dit.denoiser import Denoiser
from acestep.knobs import Knobs, Offload, Quantization, Variant
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.workload import Workload
from tests.integration.test_compiled_denoiser import velocity_inputs
from tests.integration.test_decode_ladder import leave_nothing, tiny_on_meta
from tests.integration.test_full_size_simulation import LONG, SHORT, SLACK
from tests.integration.test_simulation_against_counted_runs import CASES, takes_what_was_counted

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("offload", [Offload.CPU, Offload.STREAM_ENCODERS])
def test_twenty_generations_and_failures_leave_nothing(offload: Offload) -> None:
    leave_nothing(tiny_on_meta(), offload, generations=20)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("seed", CASES)
def test_every_stage_takes_what_was_counted(seed: int) -> None:
    takes_what_was_counted(seed)


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_a_long_song_needs_no_less_than_a_short_one_and_each_offload_mode_no_more(
    quantization: Quantization | None,
) -> None:
    prober = SimulatedProber()

    def needs(offload: Offload, workload: Workload) -> dict[str, int]:
        return prober.smallest_caps(Knobs(offload=offload, quantization=quantization), workload)

    long = {offload: needs(offload, LONG) for offload in Offload}
    for offload in Offload:
        short = needs(offload, SHORT)
        assert all(long[offload][stage] >= short[stage] - SLACK for stage in short)
    totals = [caps["total"] for caps in long.values()]
    assert all(later <= earlier + SLACK for earlier, later in pairwise(totals)), totals


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@torch.no_grad()
def test_the_real_compiler_agrees_with_eager() -> None:
    model = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    inputs = velocity_inputs(model, 1, 300)
    eager = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext())
    traced = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext(), compiled())
    assert torch.allclose(traced.velocity(*inputs, 0.7), eager.velocity(*inputs, 0.7), atol=1e-5)
