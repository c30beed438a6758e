"""The seam between a campaign and whoever runs its probes."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask
from calibrate.probes.base import Prober, ProbeResult
from calibrate.record.measurement import RecordedCardKind, RecordedProbe
from calibrate.workload import Workload

Likely = Callable[[], Sequence[ProbeTask]]
"""Tells what will probably be wanted later, for whoever has nothing to do."""


class Executor(Protocol):
    """Answers one task after another, in the order that suits it."""

    @property
    def device(self) -> str:
        """`"cuda"`, `"virtual"` or `"simulated"`, as written into records."""
        ...

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """The answer to one of several tasks, none of which it has answered before; or to one that is likely to come.

        Raises `NotMeasuredError` when nothing can be said.
        """
        ...

    def close(self) -> None:
        """End what was started."""
        ...


@runtime_checkable
class CardProber(Prober, Protocol):
    """A prober that keeps a model loaded, and can also run a request to its end."""

    def certify(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """As `probe`, with all the steps of the variant."""
        ...

    def close(self) -> None:
        """Unload the model."""
        ...


def answered(prober: Prober, task: ProbeTask) -> JournalEntry:
    """What a prober answers."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=prober.memory_model(task.variant))
    workload = task.workload
    if not task.full:
        result = prober.probe(task.knobs, workload, task.cap_bytes)
    elif isinstance(prober, CardProber):
        from acestep.dit.sampler import steps_for  # it brings torch along, as whoever certifies has already

        result = prober.certify(task.knobs, workload, task.cap_bytes)
        workload = msgspec.structs.replace(workload, steps=steps_for(task.knobs.variant, 0))
    else:
        raise NotMeasuredError(f"a {prober.device} card runs probes only, no whole request")
    timed = prober.device == RecordedCardKind.CUDA
    probe = RecordedProbe.of(task.knobs, workload, result, timed=timed, asked=task.attempt + 1)
    problem = "" if probe.verdict.answers else " ".join(result.warnings)
    return Probed(task=task, probe=probe, problem=problem)
