"""A denoise that adapts to free memory is judged by what it takes where as much is free."""

from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from acestep.knobs import Knobs, Offload, Variant
from acestep.stage import Stage
from acestep.units import GIB, MIB
from calibrate.campaign.reality import measured_cap
from calibrate.probes.base import ProbeResult
from calibrate.record.adapting import adapts
from calibrate.record.measurement import RecordedProbe
from calibrate.record.rules import broken_rules
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from ci.cells import GateCell, certified_cells
from ci.judge_code import code_findings
from ci.promises import stored_promises
from tests.fakes import AnalyticProber
from tests.gate_house import good
from tests.lies import HONEST

STREAMED = Knobs(variant=Variant.BASE, offload=Offload.STREAM)
UNGUIDED = Knobs(variant=Variant.TURBO, offload=Offload.STREAM)
WEIGHTS, ROWS = 400 * MIB, 300 * MIB
"""What the card keeps while it denoises, and what the rows of a pass take."""


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("offload", Offload)
def test_thinking_and_decoding_always_adapt_and_denoising_with_streamed_blocks(
    variant: Variant, offload: Offload
) -> None:
    knobs, song = Knobs(variant=variant, offload=offload), Workload(batch=1, duration_s=60.0)
    adapting = {stage for stage in Stage if adapts(stage, knobs, song)}
    streams = offload in (Offload.STREAM, Offload.STREAM_ENCODERS)
    assert adapting - {Stage.DENOISE} == {Stage.THINK, Stage.DECODE}
    assert (Stage.DENOISE in adapting) == (streams and not variant.is_turbo)


def a_longer_song_that_denoises_in_less(knobs: Knobs) -> set[str]:
    """The rules that two runs break of which the longer song took less while it was denoised."""
    fits = [probe for probe in HONEST.probes if probe.verdict is Verdict.FITS]
    short, long = next(
        (one, other)
        for one, other in combinations(fits, 2)
        if (one.knobs, one.cap_bytes) == (other.knobs, other.cap_bytes)
        and (one.workload.batch, one.workload.with_lm) == (other.workload.batch, False)
        and one.workload.duration_s < other.workload.duration_s
    )
    alike = {stage.name: stage for stage in short.stages}
    less = tuple(
        msgspec.structs.replace(
            alike[stage.name],
            peak_allocated_bytes=int(alike[stage.name].peak_allocated_bytes * (0.9 if stage.name == "denoise" else 1)),
        )
        for stage in long.stages
    )
    probes = (
        msgspec.structs.replace(short, knobs=knobs),
        msgspec.structs.replace(long, knobs=knobs, stages=less),
    )
    record = msgspec.structs.replace(HONEST, probes=probes, certificates=())
    return {broken.rule.id for broken in broken_rules(record, certifies=False)}


def test_a_longer_song_may_be_denoised_in_less_only_where_its_passes_go_apart() -> None:
    assert "V113" not in a_longer_song_that_denoises_in_less(STREAMED)
    assert "V113" in a_longer_song_that_denoises_in_less(UNGUIDED)
    assert "V113" in a_longer_song_that_denoises_in_less(Knobs(variant=Variant.BASE, offload=Offload.CPU_DIT))


class Adapting(AnalyticProber):
    """A card that denoises all passes together where `weights` and the rows of both fit, else apart."""

    def __init__(self, weights: int = WEIGHTS, kept: int = 0) -> None:
        super().__init__()
        self.weights, self.kept = weights, kept

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        found = super().probe(knobs, workload, 2**50)
        least = self.weights + self.kept + ROWS
        peak = least + ROWS if least + ROWS <= cap_bytes else least
        stages = tuple(
            msgspec.structs.replace(
                stage,
                peak_allocated_bytes=peak if stage.name == Stage.DENOISE else self.weights,
                peak_reserved_bytes=peak if stage.name == Stage.DENOISE else self.weights,
                resident_bytes=self.weights,
            )
            for stage in found.stages
        )
        verdict = Verdict.FITS if least <= cap_bytes else Verdict.OOM
        return msgspec.structs.replace(found, cap_bytes=cap_bytes, stages=stages, verdict=verdict)


def cell_on(prober: Adapting, cap_bytes: int, folder: Path) -> GateCell:
    promised = stored_promises(good().written(folder))
    assert promised.policy is not None
    cell = certified_cells(promised.table, promised.policy, promised.records)[0][0]
    song = Workload(batch=1, duration_s=60.0)
    probe = RecordedProbe.of(STREAMED, song, prober.probe(STREAMED, song, cap_bytes), timed=False)
    return msgspec.structs.replace(cell, probe=probe, proven_cap_bytes=cap_bytes)


@pytest.mark.parametrize(
    ("freed", "kept", "red"),
    [
        (0, 0, False),
        (20 * MIB, 0, False),
        (0, 40 * MIB, True),
        (20 * MIB, 60 * MIB, True),
        (200 * MIB, 0, False),
    ],
)
def test_smaller_weights_may_let_passes_go_together_and_hide_nothing_that_is_kept(
    freed: int, kept: int, red: bool, tmp_path: Path
) -> None:
    cell = cell_on(Adapting(), WEIGHTS + 2 * ROWS - 10 * MIB, tmp_path)
    changed = Adapting(WEIGHTS - freed, kept)
    found = list(code_findings([cell], changed, 0.02, lambda _: None))
    assert {finding.id for finding in found} == ({"G302"} if red else set())


@pytest.mark.parametrize("cap_bytes", [WEIGHTS + ROWS, WEIGHTS + 2 * ROWS, GIB * 4])
def test_what_a_run_took_with_its_passes_together_narrows_no_bracket(cap_bytes: int) -> None:
    song, card = Workload(batch=1, duration_s=60.0), Adapting()
    probe = RecordedProbe.of(STREAMED, song, card.probe(STREAMED, song, cap_bytes), timed=False)
    least, enough = measured_cap([probe])
    assert least <= WEIGHTS + ROWS <= enough
