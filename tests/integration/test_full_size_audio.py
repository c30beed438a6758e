"""What encoding a person's audio takes at full size: little, whatever its length, and far less than in one piece."""

import pytest
import torch

from acestep.checkpoints.build import build
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload
from acestep.request import Task
from acestep.units import GIB, MIB
from calibrate.probes.base import MeasuredStage
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.probes.simulated.trace import Trace, stage_usage
from calibrate.workload import Workload

MOST = int(0.35 * GIB)
"""Bytes above the weights that encoding may take: a fifth of what one piece of 30 s takes."""

KNOBS = Knobs(offload=Offload.CPU_DIT)


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


def _stage(prober: SimulatedProber, workload: Workload) -> MeasuredStage:
    stages = prober.probe(KNOBS, workload, NO_CAP).stages
    return next(stage for stage in stages if stage.name == "encode_audio")


def _above_weights(stage: MeasuredStage) -> int:
    return stage.peak_allocated_bytes - stage.resident_bytes


def test_a_reference_takes_a_third_of_a_gibibyte_at_most(prober: SimulatedProber) -> None:
    workload = Workload(batch=1, duration_s=60.0, reference_seconds=30.0)
    stage = _stage(prober, workload)
    assert prober.probe(KNOBS, workload, NO_CAP).live_at_peak["encode_audio"].keys() >= {"vae_encoder"}
    assert 0 < _above_weights(stage) <= MOST


@pytest.mark.parametrize("task", [Task.REPAINT, Task.COVER])
def test_a_song_of_ten_minutes_takes_what_a_minute_takes(prober: SimulatedProber, task: Task) -> None:
    minute, ten = (_stage(prober, Workload(batch=1, duration_s=seconds, task=task)) for seconds in (60.0, 600.0))
    assert _above_weights(ten) <= MOST
    # The difference is the latents, 64 channels in bfloat16 25 times a second.
    assert _above_weights(ten) - _above_weights(minute) <= 540 * 25 * 64 * 2 + MIB


@torch.no_grad()
def test_the_library_takes_five_times_as_much_for_a_reference(prober: SimulatedProber) -> None:
    encoder = build("dummy", dtype=torch.bfloat16, materialise="meta").vae.encoder
    trace, kernels = Trace(), CudaKernels(SIMULATED_CAPABILITY)
    with kernels, Ledger(trace, kernels):
        trace.begin_stage("encode")
        encoder(torch.empty(1, 2, 30 * 48_000, dtype=torch.bfloat16, device="meta"))
        trace.end_stage()
    (usage,) = stage_usage(trace, uncounted=("cudnn",))
    ours = _above_weights(_stage(prober, Workload(batch=1, duration_s=60.0, reference_seconds=30.0)))
    assert usage.peak_bytes > 5 * ours
