"""Opens language models with a recorder for everything that they read and write."""

from acestep.devices.base import Device
from acestep.errors import UsageError
from acestep.limits.plan import Plan
from acestep.lm.backends.base import LmBackend
from acestep.lm.jobs import Planner
from acestep.lm.language import Language, Warn
from acestep.lm.songwriting import open_lm, warn_of_noise, without_language
from calibrate.profiling.recording_backend import Pass, RecordingBackend
from calibrate.profiling.writing import Exchange, WritingPass, exchanges, writing_passes


class LmRecorder:
    """Opens language models and records every pass of theirs in `passes`, until that list is cleared.

    `tell` is called with warnings about them. Without `constrained`, they write words freely.
    """

    def __init__(self, tell: Warn, *, constrained: bool) -> None:
        self.passes: list[Pass] = []
        self._tell = tell
        self._constrained = constrained
        self._planner: Planner | None = None

    def open(self, plan: Plan, model: str, device: Device, _: Warn) -> Language:
        """Open a language model as `open_language` does. Its warnings go to the document of the whole run."""
        language = open_lm(plan, model, device, self._tell, wrap=self._record)
        warn_of_noise(language, self._tell)
        if not self._constrained:
            language.planner = language.planner.unconstrained()
        self._planner = language.planner
        return language

    def written(self) -> tuple[WritingPass, ...]:
        """The numbers of each pass."""
        return () if self._planner is None else tuple(writing_passes(self.passes, self._planner))

    def exchanges(self) -> tuple[Exchange, ...]:
        """The prompts and the texts written."""
        return () if self._planner is None else tuple(exchanges(self.passes, self._planner))

    def _record(self, backend: LmBackend) -> LmBackend:
        return RecordingBackend(backend, self.passes)


def check_language(plan: Plan) -> None:
    """Raise `UsageError` if a plan has no language model."""
    if plan.lm is None:
        raise UsageError(f"{without_language(plan)}; name one with --lm-model")
