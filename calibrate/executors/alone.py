"""One prober in this process; tasks are ordered so that models are loaded rarely."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from acestep.hardware.card import Card
from acestep.knobs import Knobs
from calibrate.executors.answers import card_answer, simulated_answer
from calibrate.executors.base import Likely
from calibrate.executors.questions import JournalEntry, ProbeTask, Question
from calibrate.fingerprint import ProbeSetting, setting_here
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED, CardConditions, CardProber, Prober, Simulation


class Alone(ABC):
    """Runs tasks of the loaded model as long as there are any."""

    serials = ()

    def __init__(self, prober: Prober) -> None:
        self.device = prober.device
        self._loaded: Knobs | None = None

    @property
    def setting(self) -> ProbeSetting:
        return setting_here()

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:  # noqa: ARG002 one alone is never idle
        """Return the answer to a task of the loaded model, otherwise of the model with most tasks."""
        asked = Counter(task.knobs for task in wanted if isinstance(task, Question))
        task = max(wanted, key=lambda task: self._worth(task, asked))
        if isinstance(task, Question):
            self._loaded = task.knobs
        return self._answer(task)

    @abstractmethod
    def _answer(self, task: ProbeTask) -> JournalEntry: ...

    def _worth(self, task: ProbeTask, asked: Counter[Knobs]) -> tuple[bool, int]:
        # What is fitted needs no card, so it comes last: a card that fails is noticed before.
        return (task.knobs == self._loaded, asked[task.knobs]) if isinstance(task, Question) else (False, 0)


class SimulationAlone(Alone):
    """One simulated card."""

    def __init__(self, prober: Simulation, card: Card = SIMULATED_CARD) -> None:
        super().__init__(prober)
        self.prober = prober
        self.card = card
        self.conditions = UNCONDITIONED

    def close(self) -> None:
        """Do nothing: no process was started."""

    def _answer(self, task: ProbeTask) -> JournalEntry:
        return simulated_answer(self.prober, task)


class CardAlone(Alone):
    """One real card."""

    def __init__(self, prober: CardProber) -> None:
        super().__init__(prober)
        self.prober = prober

    @property
    def card(self) -> Card:
        return self.prober.card

    @property
    def conditions(self) -> CardConditions:
        return self.prober.conditions

    def close(self) -> None:
        self.prober.close()

    def _answer(self, task: ProbeTask) -> JournalEntry:
        return card_answer(self.prober, task)
