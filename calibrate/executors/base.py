"""The seam between a campaign and whoever runs its probes."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask
from calibrate.probes.base import CardConditions, CardProber, Prober, Simulation
from calibrate.record.measurement import RecordedCardKind, RecordedProbe

Likely = Callable[[], Sequence[ProbeTask]]
"""Tells what will probably be wanted later, for whoever has nothing to do."""


class Executor(Protocol):
    """Answers one task after another, in the order that suits it."""

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
        """The answer to one of several tasks, none of which it has answered before; or to one that is likely to come.

        Raises `NotMeasuredError` when nothing can be said.
        """
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def answered(prober: Prober, task: ProbeTask) -> JournalEntry:
    """What a prober answers."""
    if isinstance(task, Fit):
        # A sweep takes minutes in simulation and hours on a card.
        coefficients = prober.memory_model(task.variant) if isinstance(prober, Simulation) else {}
        return Fitted(task=task, coefficients=coefficients)
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
    return Probed(task=task, probe=probe)
