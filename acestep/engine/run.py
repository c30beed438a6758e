"""What one generation has done so far."""

from torch import Tensor

from acestep.engine.pace import StepPace
from acestep.errors import RunFailedError
from acestep.request import Request, SongCodes
from acestep.stage import Stage, StageReport


class Run:
    """One call of `generate` across its retries: `done` songs have their latents on the host.

    `guarded` is true until the VRAM guard has been asked; in a `strict` run, a probe, it is never asked.
    """

    def __init__(self, request: Request, *, strict: bool) -> None:
        self.request = request
        self.strict = strict
        self.guarded = not strict
        self.songs_per_pass = request.batch
        self.latents: Tensor | None = None
        self.codes: SongCodes | None = None
        self.done = 0
        self.pace = StepPace()
        self.stage: Stage | None = None
        self.stages: dict[str, StageReport] = {}
        self.warnings: list[str] = []

    def report(self, report: StageReport) -> None:
        """Add the report of a stage, to that of its earlier runs."""
        before = self.stages.get(report.name)
        self.stages[report.name] = before.with_repeat(report) if before else report

    def tell_uncompiled(self, problem: str) -> None:
        """Warn that the transformer runs uncompiled; a probe fails, because it must not report that as compiled."""
        if self.strict:
            raise RunFailedError(f"The transformer could not be compiled: {problem}")
        self.warnings.append(
            f"The transformer cannot be compiled here ({problem}); it runs uncompiled, which is slower and sounds the"
            " same. --no-compile does without this message."
        )
