"""A card may denoise the passes of a step together or apart near the cap at which the simulation changes its way."""

import msgspec
import pytest

from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Variant
from acestep.stage import Stage
from calibrate.campaign.physics import LEAST, MOST, physics
from calibrate.probes.base import CapMethod
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.record.measurement import RecordedCard, RecordedCardKind, RecordedProbe, measurement_of
from calibrate.verdict import Verdict
from calibrate.workload import Workload

STREAMED = Knobs(variant=Variant.BASE, offload=Offload.STREAM_ENCODERS)
SONG = Workload(batch=4, duration_s=240.0)
GIB = 2**30
CARD = RecordedCard(
    kind=RecordedCardKind.CUDA,
    name="card",
    compute_capability=".".join(map(str, SIMULATED_CAPABILITY)),
    total_bytes=80 * GIB,
)


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


@pytest.fixture(scope="module")
def ways(prober: SimulatedProber) -> dict[str, RecordedProbe]:
    """The same run under the smallest cap and under one without end."""
    caps = {"apart": prober.smallest_caps(STREAMED, SONG)["total"], "together": NO_CAP}
    found = {way: prober.probe(STREAMED, SONG, cap) for way, cap in caps.items()}
    assert {one.verdict for one in found.values()} == {Verdict.FITS}
    return {way: RecordedProbe.of(STREAMED, SONG, one, timed=False) for way, one in found.items()}


def denoised(probe: RecordedProbe) -> int:
    return next(stage.peak_allocated_bytes for stage in probe.stages if stage.name == Stage.DENOISE)


def broken(prober: SimulatedProber, probe: RecordedProbe, cap_bytes: int, denoise_bytes: int) -> list[str]:
    """The rules that a card breaks which denoises in so many bytes under a cap."""
    stages = tuple(
        msgspec.structs.replace(stage, peak_allocated_bytes=denoise_bytes) if stage.name == Stage.DENOISE else stage
        for stage in probe.stages
    )
    told = msgspec.structs.replace(probe, stages=stages, cap_bytes=cap_bytes)
    record = measurement_of(CARD, (told,), (), cap_method=CapMethod.FRACTION)
    return [found.rule.id for found in physics(record, prober, lambda _: None, exact=False)]


@pytest.mark.parametrize("simulated", ["apart", "together"])
@pytest.mark.parametrize("on_the_card", ["apart", "together"])
def test_a_card_may_take_the_other_way(
    simulated: str, on_the_card: str, prober: SimulatedProber, ways: dict[str, RecordedProbe]
) -> None:
    apart, together = denoised(ways["apart"]), denoised(ways["together"])
    assert apart < together * (1 + LEAST), "the ways must differ by more than the tolerance"
    cap_bytes = ways[simulated].cap_bytes
    # Only denoising takes the other way: decoding chose its tiles under this cap.
    assert broken(prober, ways[simulated], cap_bytes, denoised(ways[on_the_card])) == []


@pytest.mark.parametrize("simulated", ["apart", "together"])
def test_no_card_takes_less_than_apart_or_more_than_together(
    simulated: str, prober: SimulatedProber, ways: dict[str, RecordedProbe]
) -> None:
    cap_bytes = ways[simulated].cap_bytes
    least, most = denoised(ways["apart"]) * (1 + LEAST), denoised(ways["together"]) * (1 + MOST)
    for inside in (int(least) + 1, int(most)):
        assert broken(prober, ways[simulated], cap_bytes, inside) == []
    for outside in (int(least) - 1, int(most) + 1):
        assert broken(prober, ways[simulated], cap_bytes, outside) == ["V201"]


def test_without_guidance_there_is_one_way(prober: SimulatedProber) -> None:
    knobs = msgspec.structs.replace(STREAMED, variant=Variant.TURBO)
    probe = RecordedProbe.of(knobs, SONG, prober.probe(knobs, SONG, NO_CAP), timed=False)
    for share, rules in ((1.0, []), (1 + LEAST - 0.005, ["V201"])):
        assert broken(prober, probe, probe.cap_bytes, int(denoised(probe) * share)) == rules
