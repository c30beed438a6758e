"""What the simulator says a stage takes is what an independent meter counts on the same run on the CPU."""

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.clip import SAMPLE_RATE, Clip
from acestep.devices.cpu import InOrder
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Quantization, Variant
from acestep.request import Request, Task
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.prober import REGIONS
from calibrate.probes.simulated.trace import Trace, stage_usage
from tests.metering import CpuKernels, MeteredCpu
from tests.some import first_of

CASES = range(20)
"""Of all cases, which `make soak` runs."""

QUICK_CASES = (0, 1, 2, 7, 12, 15)
"""One of each variant, half of them with INT8 weights, two with more than one tile."""

KNOWN = Regions()
"""What one case teaches of calls holds in the next: a wrong entry would show against the counted run."""
TILE = 256


class Tight(SimulatedDevice):
    """Takes no room ahead, as no allocator on a CPU does: what is compared is what is computed."""

    make_room = InOrder.make_room


def _case(seed: int) -> tuple[Request, Knobs]:
    draw = random.Random(seed)  # noqa: S311 a test case, not a secret
    # 12 s is more than one decode tile.
    duration_s = 12.0 if seed % 7 == 0 else draw.choice([1, 2.04, 3.5, 5, 8])
    request = Request(
        caption="x" * draw.randint(0, 400),
        lyrics="y" * draw.randint(0, 3000),
        duration_s=duration_s,
        batch=draw.randint(1, 3),
        steps=draw.randint(1, 3),
    )
    # Every second case has INT8 weights, and over the twenty every variant comes up.
    quantization = Quantization.INT8 if seed % 2 else None
    return request, Knobs(variant=draw.choice(list(Variant)), quantization=quantization)


@cache
def _with_values(knobs: Knobs) -> Components:
    components = build("tiny", knobs.variant, dtype=torch.float32)
    prepare(components, knobs)
    return components


@cache
def _without_values(knobs: Knobs) -> Components:
    components = build("tiny", knobs.variant, dtype=torch.float32, materialise="meta")
    prepare(components, knobs)
    rest_on_host(components.modules().values())
    return components


def _counted(request: Request, knobs: Knobs) -> dict[str, int]:
    meter = MeteredCpu()
    pipeline = Pipeline(_with_values(knobs), knobs, meter, vae_chunk=TILE)
    pipeline.generate(request, strict=True)
    pipeline.close()
    return meter.peaks


def _simulated(request: Request, knobs: Knobs) -> dict[str, int]:
    trace = Trace()
    tape, kernels = Tape(trace), CpuKernels()
    ledger = Ledger(tape, kernels)
    device = Tight(ledger, TraceBook(trace), dtype=torch.float32, grouped_attention=MeteredCpu.grouped_attention)
    with kernels, ledger, Memo(ledger, tape, KNOWN).patched(REGIONS):
        pipeline = Pipeline(_without_values(knobs), knobs, device, vae_chunk=TILE)
        pipeline.generate(request, strict=True)
        pipeline.close()
    return {usage.name: usage.peak_bytes - sum(usage.live_at_start.values()) for usage in stage_usage(trace)}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("seed", first_of(QUICK_CASES, 3))
def test_every_stage_takes_what_was_counted(seed: int) -> None:
    takes_what_was_counted(seed)


def takes_what_was_counted(seed: int) -> None:
    """Whether the simulated run of a case takes, stage by stage, what the meter counts."""
    request, knobs = _case(seed)
    counted, simulated = _counted(request, knobs), _simulated(request, knobs)
    assert set(simulated) == set(counted) == {"encode", "denoise", "decode"}
    for stage, n_bytes in counted.items():
        assert n_bytes > 100_000, f"{stage} was not metered"
        assert simulated[stage] == pytest.approx(n_bytes, rel=1e-3), stage


def _clip(seconds: float) -> Clip:
    return Clip(audio=np.zeros((2, round(seconds * SAMPLE_RATE)), dtype=np.float32))


# One tile and several, codes, a weak cover's second prompt, and the reference that XL pools in its own way.
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    ("variant", "fields"),
    first_of(
        [
            (Variant.TURBO, {"task": Task.REPAINT, "source_audio": _clip(2.03), "repaint_end_s": 1.0}),
            (Variant.BASE, {"task": Task.COVER, "source_audio": _clip(11.5), "cover_strength": 0.5}),
            (Variant.TURBO, {"task": Task.COVER, "audio_codes": (3,) * 300, "duration_s": 12.0}),
            (Variant.XL_SFT, {"reference_audio": _clip(5.0), "duration_s": 2.0}),
        ],
        2,
    ),
)
def test_audio_that_comes_along_takes_what_was_counted(variant: Variant, fields: dict[str, Any]) -> None:
    request, knobs = Request(caption="x", lyrics="y" * 99, steps=1, **fields), Knobs(variant=variant)
    counted, simulated = _counted(request, knobs), _simulated(request, knobs)
    assert set(simulated) == set(counted) == {"encode_audio", "encode", "denoise", "decode"}
    for stage, n_bytes in counted.items():
        assert simulated[stage] == pytest.approx(n_bytes, rel=1e-3), stage


def test_a_longer_song_moves_both_counts_by_the_same_bytes() -> None:
    """The meter does not repeat the simulator's numbers, and neither gives constants."""
    short, long = (Request(caption="x", duration_s=seconds, steps=1) for seconds in (6.0, 9.0))
    knobs = Knobs()
    grown = {stage: n - _counted(short, knobs)[stage] for stage, n in _counted(long, knobs).items()}
    simulated = {stage: n - _simulated(short, knobs)[stage] for stage, n in _simulated(long, knobs).items()}
    assert grown["denoise"] > 0
    assert grown["decode"] > 0
    for stage, n_bytes in grown.items():
        assert simulated[stage] == pytest.approx(n_bytes, rel=2e-3, abs=2048), stage
