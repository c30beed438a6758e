"""The passes of a step go together on a card under the caps under which they do in the simulation."""

import msgspec
import pytest

from acestep.stage import Stage
from acestep.units import MIB
from calibrate.probes.base import MeasuredStage, ProbeResult
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.virtual.processes import running
from tests.virtual.programs.denoise_on_a_card import KNOBS
from tests.virtual.programs.test_commands import ran
from virtual_card.card import GIB, VirtualCard
from virtual_card.controls import Control

SONG = Workload(batch=4, duration_s=120.0)

pytestmark = pytest.mark.timeout(600)


def test_with_room_for_the_rows_of_both_passes_and_without_a_card_takes_what_is_simulated() -> None:
    prober = SimulatedProber()
    least = prober.smallest_caps(KNOBS, SONG)["total"]
    caps = (least, least + 256 * MIB)
    apart, together = simulated = [prober.probe(KNOBS, SONG, cap) for cap in caps]
    assert sent(apart) > 1.9 * sent(together)
    with running(cards=(VirtualCard(board_bytes=8 * GIB),)) as machine:
        machine.controls.set(Control.REFUSE_PAGE_LOCKING, 1)
        asked = (SONG.batch, int(SONG.duration_s), *caps)
        done = ran(machine, "tests.virtual.programs.denoise_on_a_card", *asked)
    assert done.returncode == 0, done.stderr
    on_card = msgspec.json.decode(done.stdout, type=list[ProbeResult])
    assert [found.verdict for found in on_card] == [Verdict.FITS, Verdict.FITS]
    for card, expected in zip(map(denoising, on_card), map(denoising, simulated), strict=True):
        assert abs(card.peak_allocated_bytes - expected.peak_allocated_bytes) <= MIB
        assert abs(card.peak_reserved_bytes - expected.peak_reserved_bytes) <= 2 * MIB


def sent(result: ProbeResult) -> int:
    return result.work[Stage.DENOISE].transferred_bytes


def denoising(result: ProbeResult) -> MeasuredStage:
    return next(stage for stage in result.stages if stage.name == Stage.DENOISE)
