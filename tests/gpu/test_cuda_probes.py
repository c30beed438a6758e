"""On a real card: the cap holds, a probe gives the same answer every time, and other processes are noticed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import torch

from acestep.devices.accelerator import CudaDevice
from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Offload
from acestep.units import GIB
from calibrate.probes.ballast import GRAIN_BYTES
from calibrate.probes.base import CapMethod, MeasuredStage
from calibrate.probes.child import Child, Patience
from calibrate.probes.cuda import BALLAST, CudaProber
from calibrate.probes.cuda_card import require_held
from calibrate.probes.messages import Filled, LeaveFree, line_of
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.verdict import Verdict
from calibrate.workload import Workload

pytestmark = pytest.mark.gpu

KNOBS, SONG = Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=30)


def test_no_more_than_the_cap_can_be_reserved() -> None:
    device = CudaDevice(cap_bytes=GIB)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(GIB + 1, dtype=torch.uint8, device=device.torch_device)
        assert device.free_bytes() <= GIB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def prober() -> Iterator[CudaProber]:
    # The tests' own context comes first: otherwise it would be a tenant that came during a probe.
    torch.cuda.synchronize()
    prober = CudaProber()
    yield prober
    prober.close()


def test_a_probe_answers_and_the_simulation_is_near(prober: CudaProber) -> None:
    measured = prober.probe(KNOBS, SONG, 4 * GIB)
    assert measured.verdict is Verdict.FITS
    simulated = SimulatedProber(capability=torch.cuda.get_device_capability()).probe(KNOBS, SONG, 4 * GIB)
    for real, model in zip(measured.stages, simulated.stages, strict=True):
        assert real.name == model.name
        # What a library takes from the allocator during the peak is in the allowance, all of it or none.
        most = model.peak_allocated_bytes + model.allowance_bytes
        assert 0.95 * model.peak_allocated_bytes <= real.peak_allocated_bytes <= 1.05 * most


def test_a_cap_too_small_is_an_out_of_memory_verdict(prober: CudaProber) -> None:
    result = prober.probe(KNOBS, SONG, GIB)
    assert result.verdict is Verdict.OOM
    assert result.peak_reserved_bytes <= GIB


def test_probes_of_one_loaded_model_are_alike_whatever_came_before(prober: CudaProber) -> None:
    first = prober.probe(KNOBS, SONG, 4 * GIB)
    assert prober.probe(KNOBS, SONG, GIB).verdict is Verdict.OOM
    again = prober.probe(KNOBS, SONG, 4 * GIB)
    assert [_peaks(stage) for stage in again.stages] == [_peaks(stage) for stage in first.stages]


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.CPU_DIT, Offload.STREAM_ENCODERS])
@pytest.mark.parametrize("song", [SONG, Workload(batch=4, duration_s=120)])
def test_two_steps_show_the_peak_of_the_full_request(prober: CudaProber, offload: Offload, song: Workload) -> None:
    knobs = Knobs(offload=offload)
    probe, certificate = prober.probe(knobs, song, 8 * GIB), prober.certify(knobs, song, 8 * GIB)
    assert certificate.verdict is probe.verdict is Verdict.FITS
    for full, short in zip(certificate.stages, probe.stages, strict=True):
        assert full.peak_allocated_bytes == pytest.approx(short.peak_allocated_bytes, rel=0.001), full.name


def test_what_a_probe_ran_beside_is_measured(prober: CudaProber) -> None:
    prober.probe(KNOBS, SONG, 4 * GIB)
    conditions = prober.conditions
    assert conditions.watched
    assert 0 < conditions.context_bytes < 2 * GIB
    prober.close()
    assert prober.conditions.returned_s < 10, "the card is as it was soon after the child has ended"


def test_a_new_process_on_the_card_taints_the_next_probe(prober: CudaProber) -> None:
    assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.FITS
    with _ballast(prober, prober.bench.gauge.read().free_bytes - 2 * GIB):
        assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.TAINTED


def test_ballast_leaves_free_what_it_is_told(prober: CudaProber) -> None:
    with _ballast(prober, 4 * GIB) as filled:
        assert 4 * GIB - GRAIN_BYTES <= filled.free_bytes <= 4 * GIB
        assert torch.cuda.mem_get_info()[0] <= filled.free_bytes


def test_both_caps_give_the_same_verdicts() -> None:
    torch.cuda.synchronize()
    for cap_bytes in (GIB, 4 * GIB):
        verdicts = set()
        for method in (CapMethod.FRACTION, CapMethod.BALLAST):
            prober = CudaProber(method)
            verdicts.add(prober.probe(KNOBS, SONG, cap_bytes).verdict)
            prober.close()
        assert len(verdicts) == 1


@pytest.mark.parametrize("cap_bytes", [GIB, 3 * GIB + 1, 4 * GIB + 12345])
def test_a_cap_that_was_put_on_reads_back_to_the_byte(cap_bytes: int) -> None:
    try:
        CudaDevice(cap_bytes)
        require_held(cap_bytes)
        with pytest.raises(NotMeasuredError, match="the allocator holds to"):
            require_held(cap_bytes + 1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _peaks(stage: MeasuredStage) -> tuple[str, int, int]:
    return stage.name, stage.peak_allocated_bytes, stage.peak_reserved_bytes


@contextmanager
def _ballast(prober: CudaProber, free_bytes: int) -> Iterator[Filled]:
    """A process that leaves only so much of the card free."""
    child = Child(BALLAST, prober.bench.environ)
    try:
        child.send(line_of(LeaveFree(free_bytes=free_bytes)))
        line = child.line(time.monotonic() + 60, Patience(wall_s=60, silence_s=60), lambda: None)
        yield msgspec.json.decode(line, type=Filled)
    finally:
        child.kill()
