"""The answer of a prober to a task of a campaign, as it is recorded."""

import msgspec

from acestep.errors import NotMeasuredError
from acestep.request import DecodePath
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask, Question
from calibrate.probes.base import CardProber, ProbeResult, Simulation
from calibrate.record.measurement import RecordedCardKind, RecordedProbe
from calibrate.verdict import Verdict


def simulated_answer(prober: Simulation, task: ProbeTask) -> JournalEntry:
    """Return the answer of a simulated card; raise `NotMeasuredError` for a run to the end, which it cannot do."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=prober.memory_model(task.variant))
    if task.full:
        raise NotMeasuredError(f"a {prober.device} card runs probes only, no whole request")
    return probed_entry(prober.device, task, prober.probe(task.knobs, task.workload, task.cap_bytes))


def card_answer(prober: CardProber, task: ProbeTask) -> JournalEntry:
    """Return the answer of a real card; it fits no memory model, because the sweep would take hours."""
    if isinstance(task, Fit):
        return Fitted(task=task, coefficients=None)
    run = prober.certify if task.full else prober.probe
    return probed_entry(prober.device, task, run(task.knobs, task.workload, task.cap_bytes))


def crashed_entry(device: str, task: Question, problem: str) -> Probed:
    """Return the answer to a question that no card lived to answer."""
    result = ProbeResult(
        verdict=Verdict.CRASHED,
        cap_bytes=task.cap_bytes,
        stages=(),
        songs_per_pass=task.workload.batch,
        decode_path=DecodePath.GPU,
        seconds=0.0,
        warnings=(problem,),
    )
    return probed_entry(device, task, result)


def probed_entry(device: str, task: Question, result: ProbeResult) -> Probed:
    """Return the result of a run on a device as it is recorded."""
    workload = task.workload
    if task.full:
        from acestep.dit.sampler import steps_for  # imports torch, which certifying needs anyway

        workload = msgspec.structs.replace(workload, steps=steps_for(task.knobs.variant, 0))
    timed = device == RecordedCardKind.CUDA
    probe = RecordedProbe.of(task.knobs, workload, result, timed=timed, asked=task.attempt + 1)
    problem = None if probe.verdict.answers else " ".join(result.warnings) or None
    return Probed(task=task, probe=probe, problem=problem)
