"""One prober in this process; tasks are ordered so that models are loaded rarely."""

from collections import Counter
from collections.abc import Sequence

from acestep.hardware.card import Card
from acestep.knobs import Knobs
from calibrate.executors.base import Likely, answered
from calibrate.executors.questions import JournalEntry, ProbeTask, Question
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED, CardConditions, CardProber, Prober


class Alone:
    """Runs tasks of the loaded model as long as there are any."""

    def __init__(self, prober: Prober) -> None:
        self.prober = prober
        self._loaded: Knobs | None = None

    @property
    def device(self) -> str:
        """The prober's."""
        return self.prober.device

    @property
    def card(self) -> Card:
        """The prober's."""
        return self.prober.card if isinstance(self.prober, CardProber) else SIMULATED_CARD

    @property
    def conditions(self) -> CardConditions:
        """The prober's."""
        return self.prober.conditions if isinstance(self.prober, CardProber) else UNCONDITIONED

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:  # noqa: ARG002 one alone is never idle
        """Return the answer to a task of the loaded model, otherwise of the model with most tasks."""
        asked = Counter(task.knobs for task in wanted if isinstance(task, Question))
        task = max(wanted, key=lambda task: self._worth(task, asked))
        if isinstance(task, Question):
            self._loaded = task.knobs
        return answered(self.prober, task)

    def close(self) -> None:
        """Unload the model."""
        if isinstance(self.prober, CardProber):
            self.prober.close()

    def _worth(self, task: ProbeTask, asked: Counter[Knobs]) -> tuple[bool, int]:
        # What is fitted needs no card, so it comes last: a card that fails is noticed before.
        return (task.knobs == self._loaded, asked[task.knobs]) if isinstance(task, Question) else (False, 0)
