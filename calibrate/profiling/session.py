"""The model that is profiled, loaded once for as many runs as are asked for."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec
import torch

from acestep.api import of_model
from acestep.devices.base import Device
from acestep.devices.open import open_here
from acestep.errors import InvalidInputError, NotMeasuredError, RunFailedError, UsageError
from acestep.hardware import CPU, Card, detect, planning_card
from acestep.knobs import Offload
from acestep.machine import carried_out, plan_here
from acestep.memory.placement import Placement
from acestep.memory.vae_decode import chunk_from
from acestep.models.components import Components
from acestep.models.load import load
from acestep.pipeline import UNABLE_TO_THINK, Pipeline, prepare
from acestep.plan import AS_THE_TIER_SAYS, Overrides, Plan
from acestep.planner.backends.base import Backend
from acestep.planner.job import Job
from acestep.planner.language import Language
from acestep.planner.planner import Planner
from acestep.planner.thinker import LANGUAGE_MODEL, LmThinker
from acestep.planner.writing import write_in_passes
from acestep.progress import Progress, silent
from acestep.request import Request, Result
from acestep.service import guarded_pipeline
from acestep.songwriting import open_language, without_language
from acestep.stages.think import Thinker
from calibrate.profiling.overheard import Overheard, Pass
from calibrate.profiling.writing import Exchange, exchanges


class Notes:
    """Tells a person each sentence, and keeps it in `sentences`, once, for the document."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._sentences: dict[str, None] = {}

    def __call__(self, sentence: str) -> None:
        """Tell and keep."""
        self._sentences[sentence] = None
        self._tell(sentence)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that was told, in the order of the first times."""
        return tuple(self._sentences)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and where: `model` as `acestep generate --model` takes it, `device` a kind of card or `auto`."""

    model: str = "turbo"
    device: str = "auto"
    overrides: Overrides = AS_THE_TIER_SAYS


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The device of this run, the card it is, and the plan as it can carry it out."""

    device: Device
    card: Card
    plan: Plan
    model: str


def machine(wish: Wish, notes: Notes) -> Machine:
    """Settle everything that needs no weights; `NotMeasuredError` where there is no such device."""
    detected = CPU if wish.device == CPU.kind else detect(os.environ)
    planned = plan_here(of_model(wish.model, wish.overrides), planning_card(os.environ, detected))
    device, card = open_here(detected)
    if wish.device not in ("auto", card.kind):
        raise NotMeasuredError(f"--device {wish.device} was asked for, and what could be used here is {card.name}")
    plan = carried_out(planned, card)
    for sentence in plan.warnings:
        notes(sentence)
    return Machine(device=device, card=card, plan=plan, model=wish.model)


class LanguageModel:
    """A language model whose every pass is kept in `heard`."""

    def __init__(self, at: Machine, notes: Notes, *, constrained: bool) -> None:
        started = time.perf_counter()
        if at.plan.lm is None:
            raise UsageError(f"{without_language(at.plan)}; name one with --lm-model")
        self._at = at
        self._language: Language = open_language(at.plan, at.model, at.device, notes)
        if self._language.is_noise:
            notes(f"The {self._language.is_noise} language model has random weights: what it writes means nothing.")
        planner = self._language.planner
        self.planner: Planner = planner if constrained else planner.unconstrained()
        self.heard: list[Pass] = []
        self.load_seconds = time.perf_counter() - started

    def thinker(self) -> Thinker:
        """It as the pipeline's thinking stage."""
        return LmThinker(self.planner, self._open, self._language.modules(), end=self.close)

    def write(self, job: Job, progress: Progress) -> Sequence[int]:
        """The tokens of one job, with nothing else on the device."""
        device = self._at.device
        backend = self._open(device, self._alone)
        try:
            with torch.no_grad():
                written, _ = write_in_passes([job], backend, device, lambda step, most: progress("write", step, most))
        except torch.OutOfMemoryError as error:
            problem = str(error).splitlines()[0]
        else:
            return written[0]
        finally:
            backend.close()
        raise RunFailedError(f"{self._at.plan.lm} does not fit in the memory that is free ({problem})")

    def exchanges(self) -> tuple[Exchange, ...]:
        """What it was asked and wrote."""
        return exchanges(self.heard, self.planner)

    def close(self) -> None:
        """Give back what its backend keeps."""
        self._language.close()

    def _open(self, device: Device, use: Callable[[], AbstractContextManager[None]]) -> Backend:
        return Overheard(self._language.open(device, use), self.heard)

    def _alone(self) -> AbstractContextManager[None]:
        modules = self._language.modules()
        if not modules:
            return nullcontext()
        return Placement(modules, (), Offload.CPU_DIT, self._at.device).use(LANGUAGE_MODEL)


def language_model(at: Machine, notes: Notes, *, asked: bool, constrained: bool) -> tuple[LanguageModel, ...]:
    """The language model of a plan; none, and a sentence, where it cannot be had and nobody `asked`."""
    try:
        return (LanguageModel(at, notes, constrained=constrained),)
    except (InvalidInputError, UsageError) as error:
        if asked:
            raise
        problem = str(error)
    notes(f"Songs are made without planning: {problem}.")
    return ()


class Session:
    """Songs with one model, again and again. What a run that went wrong changed is undone before the next.

    `language` holds the language model, or nothing where songs are not planned: what nobody asked for may be left out.
    """

    def __init__(self, at: Machine, language: tuple[LanguageModel, ...], notes: Notes) -> None:
        started = time.perf_counter()
        self.machine = at
        self.language = language
        self.notes = notes
        self._components: Components = load(at.model, at.plan.variant, dtype=at.device.dtype)
        if self._components.is_noise:
            notes(f"The {self._components.is_noise} model has random weights: the songs are noise, not music.")
        prepare(self._components, at.plan.knobs)
        self._pipelines: dict[bool, Pipeline] = {}
        loading = sum(model.load_seconds for model in language)
        self.load_seconds = loading + time.perf_counter() - started

    @property
    def thinks(self) -> bool:
        """Whether songs can be planned."""
        return bool(self.language)

    @property
    def heard(self) -> list[Pass]:
        """The language model's passes since they were last cleared."""
        return self.language[0].heard if self.language else []

    def generate(self, request: Request, progress: Progress = silent) -> Result:
        """The songs of a request as people get them: guarded, and retried with less."""
        thinks = request.thinks
        if thinks not in self._pipelines:
            # Without thinking no language model rests on the device: the limits without one were certified that way.
            self.close()
            self._pipelines[thinks] = self._pipeline(thinks=thinks)
        pipeline = self._pipelines[thinks]
        try:
            return pipeline.generate(request, progress=progress)
        finally:
            # With more offload than the plan has, what comes after would be slower.
            if pipeline.knobs != self.machine.plan.knobs:
                self.close()

    def close(self) -> None:
        """Take everything off the device; the next song brings it back."""
        while self._pipelines:
            self._pipelines.popitem()[1].close()

    def _pipeline(self, *, thinks: bool) -> Pipeline:
        plan = self.machine.plan
        thinker = self.language[0].thinker() if thinks else UNABLE_TO_THINK
        return guarded_pipeline(self._components, plan, self.machine.device, thinker, chunk_from(os.environ))
