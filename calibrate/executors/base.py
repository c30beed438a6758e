"""The interface between a campaign and the executors that run its probes."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask
from calibrate.probes.base import CardConditions, CardProber, Prober, Simulation
from calibrate.record.measurement import RecordedCardKind, RecordedProbe

Likely = Callable[[], Sequence[ProbeTask]]
"""Returns tasks that will probably be wanted later, for an idle process."""


class Executor(Protocol):
    """Answers one task after another, in the order that it chooses."""

    @property
    def device(self) -> str:
        """`"cuda"`, `"virtual"` or `"simulated"`, as written into records."""
        ...

    @property
    def card(self) -> Card:
        """The card that answers."""
        ...

    @property
    def conditions(self) -> CardConditions:
        """What the probes so far ran beside."""
        ...

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Return the answer to one of several tasks, none of which it has answered before; or to a likely later one.

        Raises `NotMeasuredError` if a task cannot be answered.
        """
        ...

    def close(self) -> None:
        """End all processes that were started."""
        ...


def answered(prober: Prober, task: ProbeTask) -> JournalEntry:
    """Return a prober's answer to a task."""
    if isinstance(task, Fit):
        # A sweep takes minutes in simulation and hours on a card.
        coefficients = prober.memory_model(task.variant) if isinstance(prober, Simulation) else {}
        return Fitted(task=task, coefficients=coefficients)
    workload = task.workload
    if not task.full:
        result = prober.probe(task.knobs, workload, task.cap_bytes)
    elif isinstance(prober, CardProber):
        from acestep.dit.sampler import steps_for  # imports torch, which certifying needs anyway

        result = prober.certify(task.knobs, workload, task.cap_bytes)
        workload = msgspec.structs.replace(workload, steps=steps_for(task.knobs.variant, 0))
    else:
        raise NotMeasuredError(f"a {prober.device} card runs probes only, no whole request")
    timed = prober.device == RecordedCardKind.CUDA
    probe = RecordedProbe.of(task.knobs, workload, result, timed=timed, asked=task.attempt + 1)
    problem = "" if probe.verdict.answers else " ".join(result.warnings)
    return Probed(task=task, probe=probe, problem=problem)
