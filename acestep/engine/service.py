"""A service that keeps a model loaded from one request to the next."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import torch

from acestep.adapters.choice import Adapter
from acestep.checkpoints.catalog import TINY, checkpoints_dir
from acestep.checkpoints.components import Components
from acestep.checkpoints.host_memory import LanguageWeights, require_room_for
from acestep.clip import Clip
from acestep.devices.base import Device
from acestep.devices.card_faults import one_card_fault_error
from acestep.devices.cpu import weights_dtype
from acestep.devices.open import open_device, open_here
from acestep.devices.out_of_memory import free_unused
from acestep.dit.vae_decode import chunk_from
from acestep.engine.guarded import guarded_pipeline, memory_model_of
from acestep.engine.kept_language import KeptLanguage, OpenLanguage
from acestep.engine.kept_model import KeptModel, packs_for, weights_to_load
from acestep.engine.pipeline import UNABLE_TO_THINK, Pipeline
from acestep.engine.remarks import remarks_on
from acestep.engine.second_cards import SecondCards
from acestep.engine.settle_thinking import settle_thinking
from acestep.errors import NotANumberError
from acestep.hardware.card import Card, CardKind
from acestep.knobs import Backend, Knobs
from acestep.limits.capabilities import songs_in_float16
from acestep.limits.free_now import fit_now
from acestep.limits.machine import carried_out
from acestep.limits.plan import Plan, clamp
from acestep.limits.room import question_of
from acestep.lm.songwriting import language_name, open_lm, to_plan
from acestep.lm.stage import Thinker
from acestep.memory.packed import packs
from acestep.request import Request
from acestep.result import Result
from acestep.units import Progress, silent

_LOG = logging.getLogger(__name__)

Notify = Callable[[str], None]

LOADING_STAGE: Final = "loading"
"""The name of a request's progress before its first stage."""

LOADED_PARTS: Final = 3
"""The parts that are loaded: the language model, the other models, and their placement."""


def ignore(sentence: str) -> None:
    """Ignore a warning: it is also in the result."""


class Service:
    """Makes songs with `model`, one request at a time.

    The weights stay loaded as long as the knobs of the plans stay the same. At most one model and one language model
    are kept; the old one is freed before a new one is loaded. `here` is the device to run on, with its card, if it is
    open already; `open_second` opens the card that a plan has for its language model. Raises `UsageError` for an
    invalid environment variable.
    """

    def __init__(
        self,
        model: str,
        *,
        here: tuple[Device, Card] | None = None,
        open_lm: OpenLanguage = open_lm,
        open_second: Callable[[Card], Device] = lambda card: open_device(card, current=False)[0],
    ) -> None:
        self._model = model
        self._vae_chunk = chunk_from(os.environ)
        self._device, self.card = open_here() if here is None else here
        _LOG.info("songs are made on %s (%s) in %s", self.card.name, self._device.torch_device, self._device.dtype)
        self._kept_language = KeptLanguage(model, self._device, open_lm, SecondCards(open_second))
        self._kept_model = KeptModel(model, self._device, self._drop_pipelines)
        self._adapters: tuple[Adapter, ...] = ()
        self._pipelines: dict[tuple[Knobs, bool], Pipeline] = {}
        self._notify: Notify = ignore

    @one_card_fault_error()
    def generate(
        self,
        request: Request,
        plan: Plan,
        *,
        notify: Notify = ignore,
        progress: Progress = silent,
        unasked: bool = False,
        adapters: Sequence[Adapter] = (),
    ) -> tuple[Result, Plan]:
        """Return the songs, and the plan as the device carried it out.

        Fused `adapters` become part of the weights, and other ones than in the last request load the model again; the
        others are switched. `unasked` thinking, which the user did not ask for, is left out if it is impossible. Every
        warning is also passed to `notify` when it occurs.
        """
        warnings: list[str] = []

        def warn(sentence: str) -> None:
            warnings.append(sentence)
            notify(sentence)

        self._notify, self._adapters = warn, tuple(adapters)
        plan = carried_out(plan, self.card)
        for sentence in plan.warnings:
            warn(sentence)
        self._require_room(plan)
        # A run can be stopped between the parts, which take long to load.
        progress(LOADING_STAGE, 0, LOADED_PARTS)
        request, thinker = settle_thinking(request, plan, lambda: self._thinker(plan), warn, unasked=unasked)
        clamped, cuts = clamp(request, plan, lm=request.thinks)
        progress(LOADING_STAGE, 1, LOADED_PARTS)
        components = self._parts(plan)
        progress(LOADING_STAGE, 2, LOADED_PARTS)
        for sentence in (*cuts, *remarks_on(request, plan, components)):
            warn(sentence)
        plan = self._fitted(plan, clamped, components, warn)
        try:
            result = self._songs(plan, clamped, components, thinker, progress)
            problem = None
        except NotANumberError as error:
            if components.dtype is torch.float32:
                raise
            problem = str(error).partition(" If ")[0]
        if problem is not None:
            # Outside the except block, whose traceback keeps tensors of the run alive.
            warn(f"{problem} It is made once more in float32, which is slower and takes twice the memory.")
            del components
            self._require_room(plan, dtype=torch.float32)
            components = self._parts(plan, torch.float32)
            plan = self._fitted(plan, clamped, components, warn)
            result = self._songs(plan, clamped, components, thinker, progress)
        for sentence in result.warnings:
            warn(sentence)
        plan = msgspec.structs.replace(plan, dtype=str(components.dtype).removeprefix("torch."))
        return msgspec.structs.replace(result, warnings=tuple(warnings), adapters=components.adapters), plan

    @one_card_fault_error()
    def plan_song(
        self, request: Request, plan: Plan, *, progress: Progress = silent, adapters: Sequence[Adapter] = ()
    ) -> tuple[Request, tuple[str, ...]]:
        """Return a request with what the language model plans filled in, without audio codes, and the warnings.

        Raises `UsageError` for a task on an existing song and for a plan without a language model, else as `generate`.
        """
        warnings: list[str] = []
        self._notify, self._adapters = warnings.append, tuple(adapters)
        plan = carried_out(plan, self.card)
        self._require_room(plan)
        progress(LOADING_STAGE, 0, LOADED_PARTS)
        request, thinker = to_plan(request), self._thinker(plan)
        clamped, cuts = clamp(request, plan, lm=True)
        warnings += [*plan.warnings, *cuts]
        progress(LOADING_STAGE, 1, LOADED_PARTS)
        components = self._parts(plan)
        progress(LOADING_STAGE, 2, LOADED_PARTS)
        warnings += remarks_on(request, plan, components)
        plan = self._fitted(plan, clamped, components, warnings.append)
        with self._running(plan, components, thinker, thinks=True) as pipeline:
            progress(LOADING_STAGE, LOADED_PARTS, LOADED_PARTS)
            planned, more = pipeline.plan(clamped, progress)
        return planned, (*warnings, *more)

    @one_card_fault_error()
    def codes(self, clip: Clip, plan: Plan, *, notify: Notify = ignore, progress: Progress = silent) -> tuple[int, ...]:
        """Return the audio codes of a clip, five for each second: those that a cover of it follows.

        Every warning is passed to `notify`. Raises as `generate` does.
        """
        self._notify = notify
        plan = carried_out(plan, self.card)
        for sentence in (*plan.warnings, *clip.remarks):
            notify(sentence)
        self._require_room(plan)
        progress(LOADING_STAGE, 0, LOADED_PARTS)
        components = self._parts(plan)
        if components.is_noise:
            notify(f"The {components.is_noise} model has random weights: the codes mean nothing.")
        with self._running(plan, components, UNABLE_TO_THINK, thinks=False) as pipeline:
            progress(LOADING_STAGE, LOADED_PARTS, LOADED_PARTS)
            found, warnings = pipeline.codes(clip, progress)
        for sentence in warnings:
            notify(sentence)
        return found

    @one_card_fault_error()
    def preload(
        self, plan: Plan, *, think: bool, notify: Notify, unasked: bool = True, adapters: Sequence[Adapter] = ()
    ) -> bool:
        """Load what requests under a plan will need, report it, and return whether songs can be planned.

        An `unasked` language model is left out if it cannot be loaded.
        """
        self._notify, self._adapters = notify, tuple(adapters)
        plan = carried_out(plan, self.card)
        wish = Request(caption="", think=think)
        self._require_room(plan)
        wish, thinker = settle_thinking(wish, plan, lambda: self._thinker(plan), notify, unasked=unasked)
        components = self._parts(plan)
        for sentence in remarks_on(wish, plan, components):
            notify(sentence)
        self._pipeline(plan, components, thinker, thinks=wish.thinks)
        return wish.thinks

    def free_bytes(self) -> int:
        """Return the bytes that are free on the device now; 0 if it has no memory of its own or nothing is loaded."""
        return self._device.free_bytes() if self._pipelines and not self._device.shares_host_memory else 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights that are on the device between requests."""
        return sum(pipeline.held_bytes for pipeline in self._pipelines.values())

    @one_card_fault_error()
    def rest(self) -> None:
        """Free what an interrupted request left on the device.

        Must not be called inside the except block of its error.
        """
        free_unused(self._device)

    @one_card_fault_error()
    def close(self) -> None:
        """Free everything."""
        self._drop_language()
        self._kept_model.close()
        self.rest()

    def _thinker(self, plan: Plan) -> Thinker:
        if not self._kept_language.is_of(plan):
            self._drop_language()
            self._require_room(plan, language_name(plan, self._model))
        # A backend can fail at any later request, so the warning goes to the caller of that request.
        return self._kept_language.of(plan, lambda said: self._notify(said)).thinker()

    def _require_room(self, plan: Plan, language: str | None = None, dtype: torch.dtype | None = None) -> None:
        """Raise `HostMemoryError` unless what is not loaded yet fits into main memory, with a `language` model or not.

        A language model that leaves no memory for the other models is of no use.
        """
        dtype = dtype or self._dtype_of(plan)
        music = None
        if not self._kept_model.is_of(plan, dtype, self._adapters):
            # Another one is freed first, and must not count.
            self._kept_model.close()
            music = weights_to_load(self._model, plan, self._adapters, packed=packs_for(plan, dtype, self._device))
        apart_values = self._kept_model.values_to_attach(self._adapters)
        # Other backends load it by themselves, onto the card.
        beside = plan.backend is Backend.PT or plan.lm_quantization is not None
        words = None
        if language is not None and beside:
            card = plan.lm_card
            on_cpu = self._device.shares_host_memory if card is None else card.kind is CardKind.CPU
            words = LanguageWeights(name=language, quantization=plan.lm_quantization, packed=on_cpu and packs(dtype))
        if music is not None or apart_values or words is not None:
            require_room_for(checkpoints_dir(), dtype, music=music, apart_values=apart_values, language=words)

    def _dtype_of(self, plan: Plan) -> torch.dtype:
        """Return the type in which songs are made on this device; language models run in the device's own."""
        own = weights_dtype(self._device, tiny=self._model == TINY)
        return torch.float16 if songs_in_float16(self.card, plan.variant) else own

    def _parts(self, plan: Plan, dtype: torch.dtype | None = None) -> Components:
        return self._kept_model.of(plan, dtype or self._dtype_of(plan), self._adapters)

    def _songs(
        self, plan: Plan, request: Request, components: Components, thinker: Thinker, progress: Progress
    ) -> Result:
        with self._running(plan, components, thinker, thinks=request.thinks) as pipeline:
            progress(LOADING_STAGE, LOADED_PARTS, LOADED_PARTS)
            return pipeline.generate(request, progress=progress)

    def _fitted(self, plan: Plan, request: Request, components: Components, warn: Notify) -> Plan:
        """Return the plan for what is free on the device now; every request begins again with its own plan."""
        if self._device.shares_host_memory:
            return plan
        question = question_of(
            request,
            self.card,
            plan.variant,
            thinks=request.thinks,
            lm_apart=plan.lm_card is not None,
            adapters=components.adapter_memory,
        ).in_type_of(components.dtype.itemsize)
        found = fit_now(plan, question, memory_model_of(components, plan), self._device.free_bytes() + self.held_bytes)
        for sentence in found.warnings[len(plan.warnings) :]:
            warn(sentence)
        return found

    @contextmanager
    def _running(self, plan: Plan, components: Components, thinker: Thinker, *, thinks: bool) -> Iterator[Pipeline]:
        """Open the pipeline of a plan for one run."""
        pipeline = self._pipeline(plan, components, thinker, thinks=thinks)
        try:
            yield pipeline
        finally:
            if pipeline.knobs != plan.knobs:
                # The pipeline gave up memory for this run; the next request starts from its own plan again.
                self._drop_pipelines()

    def _pipeline(self, plan: Plan, components: Components, thinker: Thinker, *, thinks: bool) -> Pipeline:
        # Without thinking no language model stays on the device: the limits without one were certified that way.
        key = plan.knobs, thinks
        if key not in self._pipelines:
            self._drop_pipelines()
            self._pipelines[key] = guarded_pipeline(components, plan, self._device, thinker, self._vae_chunk)
        return self._pipelines[key]

    def _drop_language(self) -> None:
        self._drop_pipelines()
        self._kept_language.close()

    def _drop_pipelines(self) -> None:
        while self._pipelines:
            self._pipelines.popitem()[1].close()
