"""Tables with the times of songs on a card whose work is a formula."""

import msgspec

from acestep.knobs import Knobs, Quantization
from acestep.stage import Stage
from acestep.tiers import TierTable
from calibrate.probes.base import ProbeResult
from calibrate.probes.work import KernelSums, Work
from calibrate.timing.tier_times import with_times
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import result


class CountedCard:
    """A simulated card on which a second of song is a fixed amount of work, and whose questions are counted."""

    def __init__(self) -> None:
        self.asked = 0

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        self.asked += 1
        seconds = int(workload.duration_s) * (2 if knobs.quantization is Quantization.INT8 else 1)
        step = Work(products=KernelSums(10**11 * seconds, 0, 0, 10))
        work = {Stage.ENCODE: Work(), Stage.DENOISE: Work().plus(step, workload.steps), Stage.DECODE: step}
        found = result(Verdict.FITS, workload, cap_bytes, peak=1)
        return msgspec.structs.replace(found, work={str(name): sums for name, sums in work.items()})

    def writing(self, knobs: Knobs, workload: Workload, at_once: int) -> tuple[Work, int]:
        self.asked += 1
        tokens = int(5 * workload.duration_s)
        return Work(products=KernelSums(0, 10**9 * tokens, 0, 1000 * tokens)), tokens


def timed(table: TierTable, before: TierTable | None = None) -> tuple[TierTable, int]:
    """The table with times, and how often a card was asked for them."""
    card = CountedCard()
    return with_times(table, before, card), card.asked
