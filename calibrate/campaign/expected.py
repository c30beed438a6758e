"""What earlier records say about a campaign's answers: how many questions are left, and about how long they take."""

from collections.abc import Callable, Iterable

from acestep.knobs import Knobs
from calibrate.executors.questions import Question
from calibrate.record.measurement import Measurement
from calibrate.verdict import Verdict
from calibrate.workload import Workload

Expect = Callable[[Question], Verdict]
"""Returns the likely answer to a question."""


def everything_fits(question: Question) -> Verdict:  # noqa: ARG001 an Expect's argument
    """Expect the fewest questions."""
    return Verdict.FITS


def as_recorded(records: Iterable[Measurement]) -> Expect:
    """Expect what records found: a cap above one that fitted fits, and one below a cap that did not does not.

    What no record was asked is expected to fit.
    """
    fitted: dict[tuple[Knobs, Workload], int] = {}
    failed: dict[tuple[Knobs, Workload], int] = {}
    for record in records:
        for probe in record.probes:
            run = probe.knobs, probe.workload
            if probe.counts:
                fitted[run] = min(fitted.get(run, probe.cap_bytes), probe.cap_bytes)
            elif probe.verdict.answers:
                failed[run] = max(failed.get(run, probe.cap_bytes), probe.cap_bytes)

    def expect(question: Question) -> Verdict:
        run = question.knobs, question.workload
        if question.cap_bytes >= fitted.get(run, question.cap_bytes + 1):
            return Verdict.FITS
        return Verdict.OOM if question.cap_bytes <= failed.get(run, -1) else Verdict.FITS

    return expect
