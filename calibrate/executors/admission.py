"""Decides whether a worker may answer: the right kind of card, the same code, and a card that is free. Pure."""

from typing import Final

import msgspec

from acestep.hardware.card import Card
from acestep.units import MIB, gib
from calibrate.executors.cards import identity_of, is_of_kind, simulated_as
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask
from calibrate.executors.remote import WorkerReport, WorkerSetup
from calibrate.fingerprint import Fingerprint, ProbeSetting, fingerprint
from calibrate.record.measurement import RecordedCardKind
from calibrate.verdict import Verdict

MOST_FOREIGN_BYTES: Final = 512 * MIB
"""A desktop takes this much of a card; what takes more is another program at work."""


def exclusion(report: WorkerReport, setup: WorkerSetup, here: ProbeSetting, first: WorkerReport | None) -> str:
    """Return why a worker must not answer; empty if it may.

    Its code has to be that of `here`, and everything else what the `first` worker of the kind said. The libraries of a
    real card are its own, because the driver's machine need not have CUDA.
    """
    if report.device != setup.device and (setup.device, report.device) != ("cuda", "virtual"):
        return f"it answers as a {report.device} card, and was asked for a {setup.device} one"
    if not _is_declared(report.card, setup):
        return f"its card is {identity_of(report.card)}, and it was declared as {setup.kind}"
    expected = here if first is None else first.setting
    if setup.device == RecordedCardKind.CUDA and first is None:
        expected = ProbeSetting(code=here.code, libraries=report.setting.libraries, allocator=report.setting.allocator)
    card = report.card if first is None else first.card
    if different := "; ".join(_identity(card, expected).differences(_identity(report.card, report.setting))):
        return f"it has {different}"
    if report.foreign_bytes > MOST_FOREIGN_BYTES:
        return f"other programs hold {gib(report.foreign_bytes)} of its card; end them"
    return ""


def is_answer(entry: JournalEntry, task: ProbeTask) -> bool:
    """Return whether an entry is an answer to a task: to its whole workload, and to its attempt.

    What fits has stages, which show how much memory each took.
    """
    if isinstance(task, Fit):
        return isinstance(entry, Fitted) and entry.task == task
    if not isinstance(entry, Probed) or entry.task != task:
        return False
    probe, done = entry.probe, entry.probe.workload
    if task.full:
        # A whole request takes the steps of its variant.
        done = msgspec.structs.replace(done, steps=task.workload.steps)
    if (probe.knobs, done, probe.cap_bytes, probe.asked) != (
        task.knobs,
        task.workload,
        task.cap_bytes,
        task.attempt + 1,
    ):
        return False
    return probe.verdict is not Verdict.FITS or bool(probe.stages)


def _is_declared(card: Card, setup: WorkerSetup) -> bool:
    if setup.device == RecordedCardKind.SIMULATED:
        return card == simulated_as(setup.kind)
    return is_of_kind(card, setup.kind)


def _identity(card: Card, setting: ProbeSetting) -> Fingerprint:
    return fingerprint(card=identity_of(card), cap_method="", budget="", setting=setting)
