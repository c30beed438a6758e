"""Several cards of one kind share the tasks of one campaign; a lost card loses no answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card
from calibrate.executors.admission import exclusion, is_answer
from calibrate.executors.answers import crashed_entry
from calibrate.executors.base import ExecutorStoppedError, Likely
from calibrate.executors.local import trace_of
from calibrate.executors.questions import Fit, JournalEntry, Probed, ProbeTask, Question
from calibrate.executors.remote import (
    Place,
    TaskAnswered,
    WorkerAnswer,
    WorkerEvent,
    WorkerLost,
    WorkerOpened,
    WorkerReport,
    Workers,
    WorkerSetup,
)
from calibrate.fingerprint import ProbeSetting, setting_here
from calibrate.probes.base import CardConditions, worst_of
from calibrate.record.measurement import RecordedCardKind
from calibrate.verdict import Verdict

LISTEN_S: Final = 0.5
"""How often a waiting fleet looks whether it was stopped."""

LOOK_S: Final = 5.0
"""How often it asks the cluster for cards: every kind of card asks."""

MOST_LOSSES: Final = 3
"""A probe whose card was lost, or on which it crashed or timed out, is tried on another one, twice."""

STUCK_S: Final = {RecordedCardKind.SIMULATED: 1800.0, RecordedCardKind.CUDA: 7200.0}
"""How long a worker may work on one task until it counts as lost; a real card's prober ends each run before that."""

SLOW_S: Final = 60.0
SLOW_SHARE: Final = 3.0
"""A card is slow that works longer on a task than both, the second as a share of the longest answer so far. So is one
that takes longer than the first to start while no other works."""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at a moment: how many cards answer and start, which are excluded, and which are slow, with a reason."""

    at_work: int
    starting: int
    excluded: dict[str, str]
    slow: dict[str, str]


WatchFleet = Callable[[FleetState], None]


@dataclass(kw_only=True)
class _Member:
    """An open worker, its task, and what it has traced or loaded; it has conditions once an answer of it counted."""

    place: Place
    report: WorkerReport
    conditions: CardConditions | None = None
    task: ProbeTask | None = None
    since: float = 0.0
    known: set[object] = field(default_factory=set)


class Fleet:
    """The executor of one kind of card. Its first worker decides the card and the libraries of the record."""

    def __init__(
        self,
        setup: WorkerSetup,
        workers: Workers,
        *,
        stopped: threading.Event,
        watch: WatchFleet = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.setup = setup
        self.excluded: dict[Place, str] = {}
        self._workers = workers
        self._stopped = stopped
        self._watch = watch
        self._clock = clock
        self._simulated = setup.device == RecordedCardKind.SIMULATED
        self._here = setting_here()
        self._starting: dict[Place, float] = {}
        self._members: dict[Place, _Member] = {}
        self._all: list[_Member] = []
        self._losses: Counter[ProbeTask] = Counter()
        self._lost_at: dict[ProbeTask, WorkerLost] = {}
        self._longest_s = 0.0
        self._seen = self._look_at = clock()

    @property
    def device(self) -> str:
        return self._first.report.device

    @property
    def card(self) -> Card:
        """That of the first worker; waits for it, and raises `NotMeasuredError` if none comes."""
        return self._first.report.card

    @property
    def serials(self) -> tuple[str, ...]:
        answered = (member for member in self._all if member.conditions is not None)
        return tuple(sorted({member.report.serial for member in answered} - {""}))

    @property
    def setting(self) -> ProbeSetting:
        return self._first.report.setting

    @property
    def conditions(self) -> CardConditions:
        """The worst of all cards whose answers counted."""
        return worst_of([member.conditions for member in self._all if member.conditions is not None])

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Keep every card at work on what is wanted, and return the first answer that comes.

        A question that failed three times is answered `crashed`. Raises `NotMeasuredError` where no card is left,
        `ExecutorStoppedError` where the fleet was stopped.
        """
        # Foretelling takes time, and only an answer changes what it says.
        ahead = cache(likely)
        while True:
            for task in (task for task in wanted if self._losses[task] >= MOST_LOSSES):
                return self._given_up(task)
            self._give_all(lambda: wanted)
            self._give_all(ahead)
            if (entry := self._next()) is not None:
                return entry

    def close(self) -> None:
        self._workers.close()

    @property
    def _first(self) -> _Member:
        while not self._all:
            self._next()
        return self._all[0]

    def _next(self) -> JournalEntry | None:
        """Wait a moment; return an answer if one came."""
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_S
            self._lose_stuck()
            self._start_new()
        event = self._workers.next_event(LISTEN_S)
        if self._stopped.is_set():
            raise ExecutorStoppedError
        entry = self._taken(event) if event is not None else None
        self._watch(self._state())
        if self._members or self._starting:
            self._seen = self._clock()
        elif self._clock() - self._seen >= self._workers.patience_s:
            raise NotMeasuredError(f"no {self.setup.kind} is left to ask{self._told_reasons()}; go on with --resume")
        return entry

    def _start_new(self) -> None:
        """Start a worker on every card that has none: new ones, and those whose worker was lost."""
        for place in self._workers.places():
            if place not in self._starting and place not in self._members and place not in self.excluded:
                self._starting[place] = self._clock()
                self._workers.start(place)

    def _taken(self, event: WorkerEvent) -> JournalEntry | None:
        match event:
            case WorkerOpened():
                self._admit(event)
            case WorkerLost():
                self._lose(event)
            case TaskAnswered():
                return self._accepted(event)
        return None

    def _admit(self, event: WorkerOpened) -> None:
        self._starting.pop(event.place, None)
        try:
            report = msgspec.json.decode(event.report, type=WorkerReport)
        except msgspec.DecodeError as error:
            self._exclude(event.place, f"what it says of itself cannot be read: {error}")
            return
        first = self._all[0].report if self._all else None
        if reason := exclusion(report, self.setup, self._here, first):
            self._exclude(event.place, reason)
            return
        self._members[event.place] = _Member(place=event.place, report=report)
        self._all.append(self._members[event.place])

    def _accepted(self, event: TaskAnswered) -> JournalEntry | None:
        member = self._members[event.place]
        task, member.task = member.task, None
        try:
            said = msgspec.json.decode(event.answer, type=WorkerAnswer)
        except msgspec.DecodeError as error:
            self._exclude(event.place, f"its answer cannot be read: {error}")
            return None
        if said.entry is None:
            if self._simulated or not self._has_others():
                raise NotMeasuredError(f"{event.place}: {said.problem}")
            self._exclude(event.place, said.problem)
            return None
        if task is None or not is_answer(said.entry, task):
            self._exclude(event.place, "it answered another question than it was asked")
            return None
        if isinstance(said.entry, Probed) and said.entry.probe.verdict is Verdict.TAINTED:
            self._exclude(event.place, said.entry.problem or "another program used its card during a probe")
            return None
        if isinstance(said.entry, Probed) and not said.entry.probe.verdict.answers and self._has_others():
            verdict = said.entry.probe.verdict
            self._count_loss(task, WorkerLost(place=event.place, reason=said.entry.problem or f"its probe: {verdict}"))
            return None
        member.conditions = said.conditions
        self._longest_s = max(self._longest_s, self._clock() - member.since)
        return said.entry

    def _lose(self, event: WorkerLost) -> None:
        """Count a loss of the card's task; a card that never answered is not started again."""
        if event.place in self._starting:
            del self._starting[event.place]
            self._exclude(event.place, event.reason)
            return
        self._look_at = self._clock()
        member = self._members.pop(event.place)
        if member.task is not None:
            self._count_loss(member.task, event)

    def _lose_stuck(self) -> None:
        """End workers that will not answer any more; another card gets their tasks."""
        limit = STUCK_S[RecordedCardKind(self.setup.device)]
        for member in list(self._members.values()):
            if member.task is not None and self._clock() - member.since > limit:
                self._workers.stop(member.place)
                self._lose(WorkerLost(place=member.place, reason=f"no answer in {limit / 60:.0f} min"))

    def _count_loss(self, task: ProbeTask, event: WorkerLost) -> None:
        self._losses[task] += 1
        self._lost_at[task] = event

    def _has_others(self) -> bool:
        """Whether the fleet has more than one card, so that one alone may be at fault."""
        return len(self._members) + len(self._starting) > 1

    def _exclude(self, place: Place, reason: str) -> None:
        self._members.pop(place, None)
        self.excluded[place] = reason
        with suppress(NotMeasuredError):
            self._workers.stop(place)

    def _give_all(self, tasks: Likely) -> None:
        """Send a task to every free card, as far as there are any."""
        free = [member for member in self._members.values() if member.task is None]
        listed = tasks() if free else ()
        for member in free:
            self._give(member, listed)

    def _give(self, member: _Member, tasks: Sequence[ProbeTask]) -> None:
        """Send a free card the task that suits it best, if there is one that no other card is better for."""
        others = [other for other in self._members.values() if other is not member]
        under_way = {other.task for other in others}
        free = [
            task
            for task in tasks
            if task not in under_way
            and self._losses[task] < MOST_LOSSES
            and not self._better_elsewhere(task, member, others)
        ]
        best = min(free, key=lambda task: self._rank(task, member, others), default=None)
        if best is not None:
            # A card holds one model at a time, and a simulation keeps all traces.
            kept = member.known if self._simulated else set()
            member.known = kept | {self._shared(best)}
            member.task, member.since = best, self._clock()
            self._workers.ask(member.place, best)

    def _better_elsewhere(self, task: ProbeTask, member: _Member, others: Sequence[_Member]) -> bool:
        """Whether another card has traced what a simulation needs; a lost task goes to any card but the lost one."""
        if (lost := self._lost_at.get(task)) is not None:
            return lost.place == member.place and bool(others)
        shared = self._shared(task)
        # After a probe that failed on one card, two know its trace.
        return self._simulated and shared not in member.known and any(shared in other.known for other in others)

    def _rank(self, task: ProbeTask, member: _Member, others: Sequence[_Member]) -> tuple[bool, bool, bool]:
        """What is fitted takes long in a simulation and no time on a card; then comes what is traced or loaded."""
        shared = self._shared(task)
        loaded_there = any(shared in other.known for other in others)
        return isinstance(task, Fit) != self._simulated, shared not in member.known, loaded_there

    def _shared(self, task: ProbeTask) -> object:
        """What a task shares with others: its trace, on a real card its loaded model."""
        if self._simulated:
            return trace_of(task)
        return task.knobs if isinstance(task, Question) else task

    def _given_up(self, task: ProbeTask) -> JournalEntry:
        """The answer to a question whose cards were lost; raises `NotMeasuredError` for a fit, which has no verdict."""
        lost = self._lost_at[task]
        why = f"it failed {self._losses[task]} times, the last time on {lost.place}: {lost.reason}"
        if isinstance(task, Question):
            return crashed_entry(self.device, task, why)
        raise NotMeasuredError(f"the VRAM guard's model of {task.variant} could not be fitted: {why}")

    def _told_reasons(self) -> str:
        told = [f"{place}: {reason}" for place, reason in self.excluded.items()]
        told += [f"{lost.place}: {lost.reason}" for lost in self._lost_at.values()]
        return f" ({'; '.join(told)})" if told else ""

    def _state(self) -> FleetState:
        now, limit = self._clock(), max(SLOW_S, SLOW_SHARE * self._longest_s)
        slow = {
            str(member.place): f"{(now - member.since) / 60:.0f} min on one task"
            for member in self._members.values()
            if member.task is not None and now - member.since > limit
        }
        if not self._members:
            waiting = [place for place, since in self._starting.items() if now - since > SLOW_S]
            slow |= {str(place): "it waits for a free core or card, or does not start" for place in waiting[:1]}
        return FleetState(
            at_work=len(self._members),
            starting=len(self._starting),
            excluded={str(place): reason for place, reason in self.excluded.items()},
            slow=slow,
        )
