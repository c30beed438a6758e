"""What the engine takes at full size, simulated with the longest prompt; run with `-s` to see the numbers."""

import pytest

from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.units import GIB, MIB, mib
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.workload import Workload
from tests.some import first_of

LONG = Workload(batch=1, duration_s=600)
MANY = Workload(batch=8, duration_s=240)


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


@pytest.mark.parametrize(("workload", "limit"), [(LONG, 0.22 * GIB), (MANY, 0.80 * GIB)], ids=["600 s", "8 x 240 s"])
def test_denoising_takes_little_above_its_weights(prober: SimulatedProber, workload: Workload, limit: float) -> None:
    stages = prober.probe(Knobs(offload=Offload.CPU_DIT), workload, 24 * GIB).stages
    denoise = next(stage for stage in stages if stage.name == "denoise")
    activations = denoise.peak_allocated_bytes - denoise.resident_bytes
    print(f"\n{workload.batch} x {workload.duration_s} s: activations {mib(activations)}")  # noqa: T201
    assert denoise.resident_bytes > 3_000 * MIB, "the transformer's weights are not among the activations"
    assert activations <= limit


@pytest.mark.parametrize(
    ("knobs", "limit"),
    first_of(
        [
            (Knobs(offload=Offload.CPU_DIT), 3.2 * GIB),
            (Knobs(offload=Offload.CPU_DIT, quantization=Quantization.INT8), 1.8 * GIB),
            (Knobs(offload=Offload.STREAM), 1.35 * GIB),
            (Knobs(offload=Offload.STREAM_ENCODERS), 0.9 * GIB),
            (Knobs(offload=Offload.CPU_DIT, quantization=Quantization.INT8, variant=Variant.XL_TURBO), 4.35 * GIB),
        ],
        3,
    ),
    ids=["cpu+dit", "cpu+dit int8", "stream", "stream+encoders", "xl cpu+dit int8"],
)
def test_ten_minutes_fit_under_a_small_cap(prober: SimulatedProber, knobs: Knobs, limit: float) -> None:
    caps = prober.smallest_caps(knobs, LONG)
    print("\n" + ", ".join(f"{name} {mib(cap)}" for name, cap in caps.items()))  # noqa: T201
    assert caps["total"] <= limit


def test_streaming_holds_two_blocks_and_no_more(prober: SimulatedProber) -> None:
    """One block of the 2B transformer is 120 MiB, what stays beside its blocks 124."""
    stages = prober.probe(Knobs(offload=Offload.STREAM), LONG, 24 * GIB).stages
    denoise = next(stage for stage in stages if stage.name == "denoise")
    assert denoise.resident_bytes == pytest.approx((124 + 2 * 120) * MIB, rel=0.01)
