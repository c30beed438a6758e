"""Decides which probes a table needs: for each size, the least aggressive knobs and the longest song per batch.

The next question of a size depends only on the answers so far. So after each answer all decisions are made again, up to
the first missing answer. Several sizes can wait at the same time, and answers may arrive in any order or from a
journal; the result is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Final, Self

import msgspec

from acestep.budgets import System
from acestep.errors import NotMeasuredError
from acestep.knobs import LM_MODELS, Backend, Knobs, Variant
from acestep.request import DecodePath
from acestep.units import gib
from calibrate.campaign.boundary import SIMULATED, Boundary, Look, Method, find_longest, no_forecast
from calibrate.campaign.cost import cost_on
from calibrate.campaign.expected import Expect, everything_fits
from calibrate.campaign.pace import Pace, Paced
from calibrate.executors.base import Executor
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask, Question
from calibrate.record.measurement import Certificate, RecordedProbe
from calibrate.search import Certainty
from calibrate.table.choice import PROBED, choose_tier
from calibrate.table.knobs import configs_of, describe_knobs
from calibrate.table.policy import Policy, budget_bytes
from calibrate.verdict import Verdict
from calibrate.workload import Workload

TellProgress = Callable[[str], None]
"""Called with a sentence about every answer."""

TellPace = Callable[[Paced], None]
"""Called after every answer with the number of answers so far."""

KeepEntry = Callable[[JournalEntry], None]
"""Called with every answer before it is used."""


class CampaignResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a campaign: every probe once, the certificates that refer to them, and the guard's coefficients.

    `uncertain` has a sentence for each boundary whose answers contradict each other.
    """

    probes: tuple[RecordedProbe, ...]
    certificates: tuple[Certificate, ...]
    memory_model: Mapping[str, float]
    uncertain: tuple[str, ...]


class CampaignScope(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign certifies: a variant, nameplates in GiB, and which language models on which backends.

    With `in_full`, a tier's headlines are also run to their end, with all the steps of the variant. The budgets are
    those of `system`. The VRAM guard's model is fitted for Linux only: the guard adds what other kernels take itself.
    """

    variant: Variant
    sizes_gib: tuple[float, ...]
    models: tuple[str, ...] = LM_MODELS
    backends: tuple[Backend, ...] = PROBED
    in_full: bool = False
    system: System = System.LINUX


class _UnansweredError(Exception):
    """Raised when a decision needs an answer that is missing."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


def run_campaign(
    executor: Executor,
    policy: Policy,
    scope: CampaignScope,
    progress: TellProgress,
    *,
    method: Method = SIMULATED,
    known: Mapping[ProbeTask, JournalEntry] = {},
    keep: KeepEntry = lambda _: None,
    expect: Expect = everything_fits,
    paced: TellPace = lambda _: None,
) -> CampaignResult:
    """Run every probe that the rows of these sizes need; raise `NotMeasuredError` if one ends without an answer.

    `expect` foretells answers, for the time that is left only.
    """
    campaign = _Campaign(policy, scope, method, dict(known))
    pace = Pace(lambda: campaign.left(expect), cost_on(executor.device), known)
    progress(f"{pace.begin()} The first answer takes longest.")
    while wanted := campaign.wanted():
        entry = executor.one_of(wanted, campaign.likely)
        keep(entry)
        _require_answer(entry)
        campaign.take(entry)
        paced(step := pace.step(entry.task))
        progress(f"{step} {_told(entry)}")
    for sentence in (findings := campaign.findings()).uncertain:
        progress(sentence)
    return findings


def expected_tasks(policy: Policy, scope: CampaignScope, method: Method, expect: Expect) -> list[ProbeTask]:
    """Return what a campaign will probably ask, in order."""
    return _Campaign(policy, scope, method, {}).left(expect)


class _Size:
    """All decisions about one size, as far as the answers allow."""

    def __init__(self, policy: Policy, scope: CampaignScope, method: Method, size_gib: float) -> None:
        self.boundaries: dict[tuple[Knobs, int], Boundary] = {}
        self.besides: dict[Question, None] = {}
        self.cap_bytes = budget_bytes(size_gib, policy, scope.system)
        self._policy = policy
        self._decided = policy.tier_of(size_gib)
        self._scope = scope
        self.method = method
        self.known: list[RecordedProbe] = []

    def decide(self, look: Look) -> None:
        """Choose the knobs and limits of the size's tier, and probe its configs at these limits.

        Raises as `look` does.
        """

        def ask(knobs: Knobs, batch: int, at_most: int) -> int:
            grid = [seconds for seconds in self._policy.durations_s.values if seconds <= at_most]
            if not grid or not (knobs.lm is None or knobs.lm in self._scope.models):
                return 0
            if (knobs, batch) not in self.boundaries:
                found = self._find(look, knobs, batch, grid)
                self.known += [look(question) for question in found.asked]
                self.boundaries[knobs, batch] = found
            return self.boundaries[knobs, batch].seconds

        choice = choose_tier(ask, self._policy, self._decided, self._scope.variant, self._scope.backends)
        batch, longest = choice.frontier.headline_batch(lm=False), choice.frontier.longest(1, lm=False)
        if batch:
            for knobs in configs_of(choice.knobs):
                self._beside(look, knobs, batch, longest)
            if self._scope.in_full:
                self._in_full(look, choice.knobs, batch, longest)
        if choice.lm.models and self._scope.in_full:
            thinking = choice.lm.knobs(choice.knobs, choice.lm.models[-1], choice.lm.backends[0])
            frontier = choice.frontier
            self._in_full(look, thinking, frontier.headline_batch(lm=True), frontier.longest(1, lm=True))

    def questions(self) -> list[Question]:
        """Return all questions, in the order in which the decisions asked them."""
        return [question for found in self.boundaries.values() for question in found.asked] + list(self.besides)

    def apart(self) -> Self:
        """Scratch copy for what-if decisions; forecasting off, `self` unchanged."""
        other = copy(self)
        other.method = msgspec.structs.replace(self.method, forecast=no_forecast)
        other.boundaries, other.besides, other.known = dict(self.boundaries), dict(self.besides), list(self.known)
        return other

    def _find(self, look: Look, knobs: Knobs, batch: int, grid: Sequence[int], *, full: bool = False) -> Boundary:
        workload = Workload(batch=batch, duration_s=float(grid[-1]), with_lm=knobs.lm is not None)
        question = Question(knobs=knobs, workload=workload, cap_bytes=self.cap_bytes, full=full)
        return find_longest(look, question, grid, self.known, self.method)

    def _beside(self, look: Look, knobs: Knobs, batch: int, seconds: int, *, full: bool = False) -> Boundary:
        found = self._find(look, knobs, batch, [seconds], full=full)
        self.besides |= dict.fromkeys(found.asked)
        return found

    def _in_full(self, look: Look, knobs: Knobs, batch: int, seconds: int) -> None:
        if not self._beside(look, knobs, batch, seconds, full=True).seconds:
            raise NotMeasuredError(
                f"{batch} x {seconds} s under {gib(self.cap_bytes)} fits in two steps and not in full"
                f" ({describe_knobs(knobs)}), so short probes prove nothing on this card; please report this"
            )


class _Campaign:
    """All sizes, and the answers so far."""

    def __init__(
        self, policy: Policy, scope: CampaignScope, method: Method, answers: dict[ProbeTask, JournalEntry]
    ) -> None:
        self._sizes = [_Size(policy, scope, method, size) for size in scope.sizes_gib]
        self._answers = answers
        self._fits = [Fit(variant=scope.variant)] if scope.system is System.LINUX else []
        self._waiting: dict[int, Question] = {}
        self._undecided = list(range(len(self._sizes)))

    def wanted(self) -> list[ProbeTask]:
        """Return the questions that the sizes wait for, each once; empty when everything is decided."""
        for number in [n for n in self._undecided if self._waiting.get(n) in (None, *self._answers)]:
            self._waiting.pop(number, None)
            try:
                self._sizes[number].decide(self._look)
            except _UnansweredError as missing:
                self._waiting[number] = missing.question
            else:
                self._undecided.remove(number)
        return [*dict.fromkeys(self._waiting.values()), *self._unfitted()]

    def take(self, entry: JournalEntry) -> None:
        """Store an answer."""
        self._answers[entry.task] = entry

    def left(self, expect: Expect) -> list[ProbeTask]:
        """Return what is still to be asked if all further answers are as expected."""
        return [*self.missing(expect), *self._unfitted()]

    def _unfitted(self) -> list[Fit]:
        return [fit for fit in self._fits if fit not in self._answers]

    def likely(self) -> list[ProbeTask]:
        """Return the questions that are missing if everything fits from now on, and those if nothing does."""
        otherwise = self.missing(lambda _: Verdict.OOM)
        return [question for question in self.missing(everything_fits) if question in otherwise]

    def missing(self, expect: Expect) -> dict[Question, None]:
        """Return the questions that would follow if every further answer were as expected."""
        missing: dict[Question, None] = {}

        def look(question: Question) -> RecordedProbe:
            if question in self._answers:
                return self._look(question)
            missing[question] = None
            return _ended(question, expect(question))

        for number in self._undecided:
            # Where nothing fits from now on, short probes would prove nothing.
            with suppress(NotMeasuredError):
                self._sizes[number].apart().decide(look)
        return missing

    def findings(self) -> CampaignResult:
        """Return the results; every size must be decided."""
        probes: dict[object, RecordedProbe] = {}
        for question in (question for size in self._sizes for question in size.questions()):
            probe = self._look(question)
            probes[probe.question] = max(probes.get(probe.question, probe), probe, key=lambda probe: probe.asked)
        places = {point: place for place, point in enumerate(probes)}

        def place(side: Question | None) -> int | None:
            return None if side is None else places[self._look(side).question]

        certificates, uncertain = {}, []
        for size in self._sizes:
            for (knobs, batch), found in size.boundaries.items():
                certificates[knobs, batch, size.cap_bytes] = Certificate(
                    knobs=knobs,
                    cap_bytes=size.cap_bytes,
                    batch=batch,
                    fits=place(found.fits),
                    fails=place(found.fails),
                )
                if found.certainty is Certainty.UNCERTAIN:
                    uncertain.append(
                        f"uncertain: {batch} songs under {gib(size.cap_bytes)}, {describe_knobs(knobs)}: some length"
                        " fails and a longer one fits, so none counts as fitting."
                    )
        fitted = [self._answers[fit] for fit in self._fits]
        return CampaignResult(
            probes=tuple(probes.values()),
            certificates=tuple(certificates.values()),
            memory_model=next((f.coefficients for f in fitted if isinstance(f, Fitted) and f.coefficients), {}),
            uncertain=tuple(uncertain),
        )

    def _look(self, question: Question) -> RecordedProbe:
        entry = self._answers.get(question)
        if not isinstance(entry, Probed):
            raise _UnansweredError(question)
        return entry.probe


def _ended(question: Question, verdict: Verdict) -> RecordedProbe:
    return RecordedProbe(
        knobs=question.knobs,
        workload=question.workload,
        cap_bytes=question.cap_bytes,
        verdict=verdict,
        songs_per_pass=question.workload.batch,
        decode_path=DecodePath.GPU,
        stages=(),
    )


def _require_answer(entry: JournalEntry) -> None:
    """Raise `NotMeasuredError` for a probe without an answer."""
    if isinstance(entry, Probed) and not entry.probe.verdict.answers:
        asked, verdict = entry.task, entry.probe.verdict
        raise NotMeasuredError(
            f"a probe ended {verdict}, which says nothing about the fit ({describe_knobs(asked.knobs)},"
            f" batch {asked.workload.batch}, {asked.workload.duration_s:g} s){_because(entry)}; {_AFTER[verdict]}"
        )


_AFTER: Final = {
    Verdict.TAINTED: "run it again on an idle card with --resume",
    Verdict.TIMEOUT: "run it again with --resume, with nothing else at work on this machine",
    Verdict.CRASHED: "go on with --resume; if it ends so again, please report it with this sentence",
}
"""The advice after a probe that gave no answer."""


def _because(entry: Probed) -> str:
    return "" if entry.problem is None else f": {entry.problem.rstrip('.')}"


def _told(entry: JournalEntry) -> str:
    if isinstance(entry, Fitted):
        return f"{len(entry.coefficients or ())} coefficients for the VRAM guard of {entry.task.variant}"
    asked = entry.task
    again = f", asked {entry.probe.asked} times" if asked.attempt else ""
    whole = "in full, " if asked.full else ""
    return f"{whole}{describe_probe(asked.knobs, asked.workload, asked.cap_bytes)}: {entry.probe.verdict}{again}"


def describe_probe(knobs: Knobs, workload: Workload, cap_bytes: int) -> str:
    """Return a probe's question as text for one progress line."""
    songs = f"{workload.batch} x {workload.duration_s:g} s"
    return f"{songs} under {gib(cap_bytes)}, {describe_knobs(knobs)}"
