"""The interface between a campaign and the executors that run its probes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from acestep.hardware.card import Card
from calibrate.executors.questions import JournalEntry, ProbeTask
from calibrate.fingerprint import ProbeSetting
from calibrate.probes.base import CardConditions

Likely = Callable[[], Sequence[ProbeTask]]
"""Returns tasks that will probably be wanted later, for an idle process."""


class ExecutorStoppedError(Exception):
    """The executor was stopped from outside, in the middle of its work."""


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
        """The conditions of the probes so far."""
        ...

    @property
    def serials(self) -> tuple[str, ...]:
        """The digests of the UUIDs of the cards that answered together; empty for a card alone."""
        ...

    @property
    def setting(self) -> ProbeSetting:
        """The code and the libraries that answer."""
        ...

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Return the answer to one of several tasks, none of which it has answered before; or to a likely later one.

        Raises `NotMeasuredError` if a task cannot be answered.
        """
        ...

    def close(self) -> None:
        """End all processes that were started."""
        ...
