"""Cards behind workers, here or elsewhere: the protocols that start and ask them, and what they say, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from acestep.budgets import System
from acestep.hardware.card import Card
from calibrate.executors.questions import JournalEntry, ProbeTask
from calibrate.fingerprint import ProbeSetting
from calibrate.probes.base import CapMethod, CardConditions


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One card of a machine, counted from 1; `node` is unique, `host` is shown."""

    node: str
    host: str
    number: int

    def __str__(self) -> str:
        return f"{self.host} #{self.number}"


class WorkerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker opens: a card of a `kind`, on `device` "cuda" or "simulated"."""

    device: str
    kind: str
    system: System
    cap_method: CapMethod


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker found: its card, what it answers with, and how much of the card other programs hold.

    `serial` is a digest of the UUID of a real card, which stays on its machine.
    """

    device: str
    card: Card
    setting: ProbeSetting
    foreign_bytes: int
    serial: str = ""


class WorkerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with the conditions so far, or the reason why there is none."""

    entry: JournalEntry | None
    conditions: CardConditions
    problem: str = ""


class WorkerOpened(msgspec.Struct, frozen=True, kw_only=True):
    """A worker has opened its card."""

    place: Place
    report: bytes


class TaskAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """A worker has answered what it was asked."""

    place: Place
    answer: bytes


class WorkerLost(msgspec.Struct, frozen=True, kw_only=True):
    """A worker has ended, or could not be started."""

    place: Place
    reason: str


WorkerEvent = WorkerOpened | TaskAnswered | WorkerLost


class Workers(Protocol):
    """Cards of one kind, one worker for each; a worker has one task at a time."""

    @property
    def patience_s(self) -> float:
        """How long a fleet without a card waits for one."""
        ...

    def places(self) -> Sequence[Place]:
        """The cards of the kind that are there now, used or not."""
        ...

    def start(self, place: Place) -> None:
        """Begin to start a worker on a card; the next event of the place is `WorkerOpened` or `WorkerLost`."""
        ...

    def ask(self, place: Place, task: ProbeTask) -> None:
        """Send a task to an open worker; the next event of the place is `TaskAnswered` or `WorkerLost`."""
        ...

    def stop(self, place: Place) -> None:
        """End a worker, whatever it is doing; no event of it follows."""
        ...

    def next_event(self, timeout_s: float) -> WorkerEvent | None:
        """Wait for something to happen; None after `timeout_s`. Raises `NotMeasuredError` without a connection."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Machines(Protocol):
    """A machine or a cluster with cards of several kinds."""

    @property
    def name(self) -> str:
        """What a message calls them."""
        ...

    @property
    def verb(self) -> str:
        """What they do with kinds of card: they have or declare them."""
        ...

    def kinds(self, device: str) -> Mapping[str, Sequence[Place]]:
        """Return every kind of card by name, and the cards of each; no card has two names.

        Raises `NotMeasuredError` where none can be used.
        """
        ...

    def left_out(self) -> Sequence[str]:
        """Return a sentence for every card that is here and of no kind."""
        ...

    def workers(self, setup: WorkerSetup) -> Workers:
        """Return the workers of one kind."""
        ...

    def close(self) -> None:
        """End every worker."""
        ...
