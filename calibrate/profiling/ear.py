"""Language models as everybody opens them, and all that they are asked and write."""

from acestep.devices.base import Device
from acestep.errors import UsageError
from acestep.limits.plan import Plan
from acestep.lm.backends.base import LmBackend
from acestep.lm.jobs import Planner
from acestep.lm.language import Language, Warn
from acestep.lm.songwriting import open_lm, warn_of_noise, without_language
from calibrate.profiling.overheard import Overheard, Pass
from calibrate.profiling.writing import Exchange, WritingPass, exchanges, writing_passes


class Ear:
    """Opens language models and keeps every pass of theirs in `heard`, until that is cleared.

    `tell` is told what there is to know about them. Where they are not `constrained`, they write words freely.
    """

    def __init__(self, tell: Warn, *, constrained: bool) -> None:
        self.heard: list[Pass] = []
        self._tell = tell
        self._constrained = constrained
        self._planner: Planner | None = None

    def open(self, plan: Plan, model: str, device: Device, _: Warn) -> Language:
        """As `open_language`; what it says goes to the document of the whole run, whichever song it came up at."""
        language = open_lm(plan, model, device, self._tell, hear=self._overhear)
        warn_of_noise(language, self._tell)
        if not self._constrained:
            language.planner = language.planner.unconstrained()
        self._planner = language.planner
        return language

    def written(self) -> tuple[WritingPass, ...]:
        """The numbers of each pass."""
        return () if self._planner is None else tuple(writing_passes(self.heard, self._planner))

    def exchanges(self) -> tuple[Exchange, ...]:
        """What was asked and written."""
        return () if self._planner is None else tuple(exchanges(self.heard, self._planner))

    def _overhear(self, backend: LmBackend) -> LmBackend:
        return Overheard(backend, self.heard)


def check_language(plan: Plan) -> None:
    """Raise `UsageError` where a plan has no language model."""
    if plan.lm is None:
        raise UsageError(f"{without_language(plan)}; name one with --lm-model")
