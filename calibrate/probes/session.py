"""One child with one loaded model, from its start until the card is as before."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import CONTEXT_BYTES
from acestep.knobs import Knobs
from acestep.request import DecodePath
from acestep.units import gib, mib
from calibrate.probes.ballast import GRAIN_BYTES
from calibrate.probes.base import CapMethod
from calibrate.probes.caps import Cap
from calibrate.probes.child import Child, Patience, ProbeEndedError
from calibrate.probes.messages import (
    Alive,
    Filled,
    LeaveFree,
    Order,
    Ready,
    Refused,
    RunOutcome,
    Said,
    Setup,
    StageOnCard,
    line_of,
)
from calibrate.probes.nvml import Gauge
from calibrate.probes.watch import CardWatch
from calibrate.verdict import Verdict
from calibrate.workload import Workload

Expected = TypeVar("Expected")


class ProbeSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of probes: the children's commands and environment, and the gauge of the card.

    `context_bytes` are what a cap leaves for a context. `return_s` is the longest time in which a card may become as
    before after a child has ended.
    """

    gauge: Gauge
    worker: tuple[str, ...]
    ballast: tuple[str, ...]
    environ: Mapping[str, str]
    loading: Patience
    probing: Patience
    return_s: float = 10.0
    context_bytes: int = CONTEXT_BYTES
    method: CapMethod = CapMethod.FRACTION


class ProbeSession:
    """A loaded model, ready for any number of probes; it cannot be used after a `ProbeEndedError`."""

    def __init__(self, setup: Setup, bench: ProbeSetup) -> None:
        """Raises `ProbeEndedError` for a child that does not start, `NotMeasuredError` for one that refuses."""
        self.setup = setup
        self.resting_bytes = self.withheld_bytes = 0
        self._bench = bench
        self._asked = 0
        self._filler: Child | None = None
        before = bench.gauge.read()
        self._child = Child(bench.worker, bench.environ)
        try:
            self.allocator: str = _reply_of(self._child, Ready, setup, bench.loading).allocator
            opened = bench.gauge.read()
            if bench.method is CapMethod.BALLAST:
                self._filler = Child(bench.ballast, bench.environ)
                _reply_of(self._filler, Filled, LeaveFree(free_bytes=opened.total_bytes), bench.loading)
            self._watch = CardWatch(bench.gauge, before, [child.mark for child in self._children])
        except BaseException:
            self.close()
            raise
        self.context_bytes = opened.used_bytes - before.used_bytes if bench.gauge.watches else bench.context_bytes

    def close(self) -> None:
        """End the children and everything they started."""
        for child in self._children:
            child.kill()

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int, *, full: bool) -> RunOutcome:
        """Run once under a cap; raise `ProbeEndedError` if the child gives no answer."""
        bench = self._bench
        cap = Cap(cap_bytes=cap_bytes, assumed_bytes=bench.context_bytes, context_bytes=self.context_bytes)
        self._asked += 1
        self.withheld_bytes = cap.withheld_bytes()
        if cap.allocator_bytes == 0:
            problem = f"the driver's context takes {mib(cap.context_bytes)}, and leaves nothing of {gib(cap_bytes)}"
            return RunOutcome.of_no_run(self._asked, Verdict.OOM, workload.batch, problem)
        if self._filler is not None:
            self._fill(self._filler, cap)
        self._watch.settle()
        order = Order(number=self._asked, knobs=knobs, workload=workload, cap_bytes=cap.allocator_bytes, full=full)
        answer = _reply_of(self._child, RunOutcome, order, bench.probing, self._watch)
        _require_possible(order, answer)
        self._watch.rest(answer.resting_bytes - self.resting_bytes)
        self.resting_bytes = answer.resting_bytes
        # Kernels stay loaded, so the growth of the context is charged to later probes too.
        self.context_bytes += answer.grown_bytes
        charged, self.withheld_bytes = _charged(answer, cap)
        return charged

    @property
    def _children(self) -> tuple[Child, ...]:
        return (self._child,) if self._filler is None else (self._child, self._filler)

    def _fill(self, filler: Child, cap: Cap) -> None:
        filled = _reply_of(filler, Filled, LeaveFree(free_bytes=cap.free_bytes), self._bench.loading, self._watch)
        if filled.free_bytes < cap.free_bytes - GRAIN_BYTES:
            raise NotMeasuredError(
                f"the ballast leaves only {gib(filled.free_bytes)} of the card free, and the probe needs"
                f" {gib(cap.free_bytes)}; measure smaller sizes, or use the cap method `fraction`"
            )


def _idle() -> None:
    """No-op tick: the card is not watched while children start."""


def _reply_of(
    child: Child, kind: type[Expected], message: object, patience: Patience, tick: Callable[[], None] = _idle
) -> Expected:
    """Send `message` and block until a reply of type `kind`."""
    child.send(line_of(message))
    deadline = time.monotonic() + patience.wall_s
    while True:
        line = child.line(deadline, patience, tick)
        try:
            said = msgspec.json.decode(line, type=Said | Filled)
        except msgspec.DecodeError as error:
            raise ProbeEndedError(Verdict.CRASHED, f"the probe's child said what no message is ({error})") from None
        if isinstance(said, kind):
            return said
        if isinstance(said, Refused):
            raise NotMeasuredError(said.problem)
        if not isinstance(said, Alive):
            raise ProbeEndedError(Verdict.CRASHED, f"the probe's child said {type(said).__name__} out of turn")


def _require_possible(order: Order, answer: RunOutcome) -> None:
    """Raise `ProbeEndedError` for an answer to another order, or one that no allocator could give."""
    if answer.number != order.number:
        problem = f"the probe's child answered question {answer.number} instead of {order.number}"
        raise ProbeEndedError(Verdict.CRASHED, problem)
    for stage in answer.stages:
        if not stage.peak_allocated_bytes <= stage.peak_reserved_bytes <= order.cap_bytes:
            raise ProbeEndedError(
                Verdict.CRASHED,
                f"the probe's child counted {stage.peak_allocated_bytes} bytes allocated of {stage.peak_reserved_bytes}"
                f" reserved in {stage.name}, under a cap of {order.cap_bytes}",
            )


def _charged(answer: RunOutcome, cap: Cap) -> tuple[RunOutcome, int]:
    """Return the answer, or an out-of-memory verdict if a small card could not hold what is outside the allocator.

    Also return the withheld bytes of the cap; for a verdict given here, those of the stage it names. In that case the
    run itself fitted, because the allocator had more than the small card would give it.
    """
    if answer.verdict not in (Verdict.FITS, Verdict.DEGRADED):
        return answer, cap.withheld_bytes()

    def grown(stage: StageOnCard) -> int:
        return stage.outside_bytes - answer.outside_bytes

    def overrun(stage: StageOnCard) -> int:
        return cap.overrun_bytes(stage.peak_reserved_bytes, grown(stage))

    worst = max(answer.stages, key=overrun, default=None)
    if worst is None or not overrun(worst):
        return answer, cap.withheld_bytes()
    stages = answer.stages[: answer.stages.index(worst) + 1]
    problem = f"{worst.name} took {mib(overrun(worst))} beside the allocator that the cap does not have"
    refused = msgspec.structs.replace(
        answer, verdict=Verdict.OOM, stages=stages, decode_path=DecodePath.GPU, problem=problem
    )
    return refused, cap.withheld_bytes(grown(worst))
