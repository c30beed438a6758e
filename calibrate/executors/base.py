"""The interface between a campaign and the executors that run its probes."""

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
"""Returns tasks that will probably be wanted later, for an idle process."""


class Executor(Protocol):
    """Answers one task after another, in the order that it chooses."""

    @property
    def device(self) -> str:
        """`"cuda"` or `"simulated"`, as written into records."""
        ...

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Return the answer to one of several tasks, none of which it has answered before; or to a likely later one.

        Raises `NotMeasuredError` if a task cannot be answered.
        """
        ...

    def close(self) -> None:
        """End all processes that were started."""
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
    """Return a prober's answer to a task."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=prober.memory_model(task.variant))
    workload = task.workload
    if not task.full:
        result = prober.probe(task.knobs, workload, task.cap_bytes)
    elif isinstance(prober, CardProber):
        from acestep.dit.sampler import steps_for  # imports torch, which certifying needs anyway

        result = prober.certify(task.knobs, workload, task.cap_bytes)
        workload = msgspec.structs.replace(workload, steps=steps_for(task.knobs.variant, 0))
    else:
        raise NotMeasuredError(f"a {prober.device} card runs probes only, no whole request")
    timed = prober.device != RecordedCardKind.SIMULATED
    probe = RecordedProbe.of(task.knobs, workload, result, timed=timed, asked=task.attempt + 1)
    return Probed(task=task, probe=probe)
