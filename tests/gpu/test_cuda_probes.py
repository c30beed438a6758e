"""On a real card: the cap holds, a probe's child answers, and placement changes nothing about the song."""

import numpy as np
import pytest
import torch

from acestep.devices.cuda import CudaDevice
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.models.build import build
from acestep.pipeline import Pipeline, prepare
from acestep.request import Request
from acestep.units import GIB, MIB
from calibrate.probes.cuda import CudaProber
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.verdict import Verdict
from calibrate.workload import Workload

pytestmark = pytest.mark.gpu


def test_no_more_than_the_cap_can_be_reserved() -> None:
    device = CudaDevice(cap_bytes=GIB)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(GIB + 1, dtype=torch.uint8, device=device.torch_device)
        assert device.free_bytes() <= GIB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_every_placement_makes_the_same_song(quantization: Quantization | None) -> None:
    songs = []
    for offload in Offload:
        knobs = Knobs(offload=offload, quantization=quantization)
        device = CudaDevice()
        components = build("tiny", Variant.TURBO, dtype=device.dtype)
        prepare(components, knobs)
        pipeline = Pipeline(components, knobs, device)
        songs.append(pipeline.generate(Request(caption="slow piano", duration_s=4, seed=3)).songs[0].audio)
        pipeline.close()
    assert all(np.array_equal(song, songs[0]) for song in songs[1:])


@pytest.mark.parametrize("offload", [Offload.CPU_DIT, Offload.STREAM, Offload.STREAM_ENCODERS])
def test_full_size_weights_arrive_before_they_are_computed_with(offload: Offload) -> None:
    request = Request(caption="slow piano", lyrics="la la", duration_s=30, seed=3, steps=2)
    components, device = build("dummy", Variant.TURBO, dtype=CudaDevice().dtype), CudaDevice()
    prepare(components, Knobs())
    songs = []
    for where in (Offload.NONE, offload):
        pipeline = Pipeline(components, Knobs(offload=where), device)
        songs.append([pipeline.generate(request).songs[0].audio for _ in range(2)])
        pipeline.close()
        assert device.allocated_bytes() < 64 * MIB, "nothing but workspaces stays"
    assert np.array_equal(songs[0][0], songs[1][0])
    assert np.array_equal(songs[1][0], songs[1][1]), "the second song finds its host weights page-locked"


def test_a_probe_answers_and_the_simulation_is_near() -> None:
    knobs, workload = Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=30)
    measured = CudaProber().probe(knobs, workload, 4 * GIB)
    assert measured.verdict is Verdict.FITS
    simulated = SimulatedProber().probe(knobs, workload, 4 * GIB)
    for real, model in zip(measured.stages, simulated.stages, strict=True):
        assert real.name == model.name
        assert model.peak_allocated_bytes == pytest.approx(real.peak_allocated_bytes, rel=0.05)


def test_a_cap_too_small_is_an_out_of_memory_verdict() -> None:
    knobs, workload = Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=30)
    assert CudaProber().probe(knobs, workload, GIB).verdict is Verdict.OOM
