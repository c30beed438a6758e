"""The answer of a prober to a task of a campaign, as it is recorded."""

import msgspec

from acestep.errors import NotMeasuredError
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask, Question
from calibrate.probes.base import CardProber, ProbeResult, Simulation
from calibrate.record.measurement import RecordedCardKind, RecordedProbe


def simulated_answer(prober: Simulation, task: ProbeTask) -> JournalEntry:
    """Return the answer of a simulated card; raise `NotMeasuredError` for a run to the end, which it cannot do."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=prober.memory_model(task.variant))
    if task.full:
        raise NotMeasuredError(f"a {prober.device} card runs probes only, no whole request")
    return _probed(prober.device, task, prober.probe(task.knobs, task.workload, task.cap_bytes))


def card_answer(prober: CardProber, task: ProbeTask) -> JournalEntry:
    """Return the answer of a real card; it fits no memory model, because the sweep would take hours."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=None)
    run = prober.certify if task.full else prober.probe
    return _probed(prober.device, task, run(task.knobs, task.workload, task.cap_bytes))


def _probed(device: str, task: Question, result: ProbeResult) -> Probed:
    workload = task.workload
    if task.full:
        from acestep.dit.sampler import steps_for  # imports torch, which certifying needs anyway

        workload = msgspec.structs.replace(workload, steps=steps_for(task.knobs.variant, 0))
    timed = device == RecordedCardKind.CUDA
    probe = RecordedProbe.of(task.knobs, workload, result, timed=timed, asked=task.attempt + 1)
    problem = None if probe.verdict.answers else " ".join(result.warnings) or None
    return Probed(task=task, probe=probe, problem=problem)
