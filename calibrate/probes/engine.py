"""The child process of a prober: runs the shipped pipeline on a card, under a cap."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
import torch

from acestep.devices.base import Device
from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.knobs import Backend, Knobs
from acestep.request import MAX_DURATION_S
from calibrate.probes.messages import Done, Order, Setup, StageOnCard
from calibrate.probes.prompt import probe_request

if TYPE_CHECKING:
    from acestep.checkpoints.components import Components
    from acestep.engine.pipeline import Pipeline
    from acestep.lm.language import Language


class ProcessCard(Protocol):
    """A card used by one process."""

    def open(self) -> torch.dtype:
        """Prepare the card; return the dtype of its weights. Raises `NotMeasuredError` if there is no card."""
        ...

    def capped(self, cap_bytes: int) -> Device:
        """Return the card, empty, under a cap that was read back from it."""
        ...

    def settings(self) -> str:
        """The settings of the card's allocator from the environment."""
        ...

    def outside_bytes(self) -> int:
        """Bytes used on the card outside this process's allocator."""
        ...

    def flush(self) -> int:
        """Free what is not referenced; return the bytes that stay reserved."""
        ...


def open_components(setup: Setup, dtype: torch.dtype) -> "Components":
    """The weights of a probe on the host, in the form in which they run."""
    from acestep.checkpoints.load import load
    from acestep.engine.pipeline import prepare

    knobs = setup.knobs
    components = load(setup.model, knobs.variant, dtype=dtype, quantization=knobs.quantization)
    prepare(components, knobs)
    return components


def open_probe_lm(model: str, knobs: Knobs, device: Device) -> "Language":
    """Open the language model of a probe: its own weights if they are on disk, else dummy ones of the same size.

    With the tiny `model` it is the tiny one. Raises `NotMeasuredError` if a backend needs a checkpoint and finds none.
    """
    from acestep.checkpoints.catalog import DUMMY_PREFIX, TINY
    from acestep.lm.language import Language

    def refuse(sentence: str) -> None:
        raise NotMeasuredError(sentence)

    name, longest_s = TINY if model == TINY else str(knobs.lm), int(MAX_DURATION_S)
    try:
        return Language(name, knobs, device, longest_s=longest_s, warn=refuse)
    except InvalidInputError as error:
        problem = str(error)
    if knobs.backend is not Backend.PT:
        raise NotMeasuredError(f"backend {knobs.backend} is probed with real weights only: {problem}")
    return Language(DUMMY_PREFIX + name, knobs, device, longest_s=longest_s, warn=refuse)


def open_pipeline(
    components: "Components", knobs: Knobs, device: Device, language: "Language | None" = None, *, full: bool = False
) -> "Pipeline":
    """Build the pipeline of a probe: no guard, and the decode tile that fits in free memory.

    A `language` model rehearses its longest prompts, and in a `full` run writes everything that follows them.
    """
    from acestep.engine.pipeline import Pipeline
    from acestep.lm.thinker import LmThinker
    from calibrate.probes.rehearsal import Rehearsal

    if language is None:
        return Pipeline(components, knobs, device)

    def rehearsed(device: Device, use: Callable[[], AbstractContextManager[None]]) -> Rehearsal:
        return Rehearsal(language.open(device, use), whole=full)

    thinker = LmThinker(language.planner, rehearsed, language.modules(), end=language.close)
    return Pipeline(components, knobs, device, thinker=thinker)


class PipelineEngine:
    """The weights stay loaded on the host, and every run starts with an empty card."""

    def __init__(self, card: ProcessCard) -> None:
        self._card = card
        self._stages: dict[str, StageOnCard] = {}

    @property
    def stages(self) -> tuple[StageOnCard, ...]:
        return tuple(self._stages.values())

    def load(self, setup: Setup) -> str:
        self._model = setup.model
        self._components = open_components(setup, self._card.open())
        self._language: Language | None = None
        return self._card.settings()

    def run(self, order: Order, alive: Callable[[str], None]) -> Done:
        self._stages.clear()
        device = cast(Device, _NotingDevice(self._card.capped(order.cap_bytes), self._note))
        request = probe_request(order.workload, self._components.tokenizer)
        if order.full:
            request = msgspec.structs.replace(request, steps=0)
        language = None
        if order.knobs.lm is not None:
            request = msgspec.structs.replace(request, think=True)
            language = self._language = self._language or open_probe_lm(self._model, order.knobs, device)
        pipeline = open_pipeline(self._components, order.knobs, device, language, full=order.full)
        try:
            result = pipeline.generate(request, strict=True, progress=lambda stage, *_: alive(stage))
        finally:
            pipeline.close()
        for report in result.stages:
            noted = self._stages[report.name]
            self._stages[report.name] = msgspec.structs.replace(noted, songs_per_pass=report.songs_per_pass)
        return Done(songs_per_pass=result.songs_per_pass, decode_path=result.decode_path, warnings=result.warnings)

    def outside_bytes(self) -> int:
        return self._card.outside_bytes()

    def rest(self) -> int:
        return self._card.flush()

    def _note(self, name: str, seconds: float, allocated: int, reserved: int) -> None:
        noted = StageOnCard(
            name=name,
            seconds=seconds,
            songs_per_pass=1,
            peak_allocated_bytes=allocated,
            peak_reserved_bytes=reserved,
            outside_bytes=self._card.outside_bytes(),
        )
        before = self._stages.get(name)
        self._stages[name] = before.with_repeat(noted) if before else noted


class _NotingDevice:
    """A device that records the peaks of every stage, also of a failing one."""

    def __init__(self, device: Device, note: Callable[[str, float, int, int], None]) -> None:
        self._device = device
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def begin_stage(self, name: str) -> None:
        self._device.begin_stage(name)
        self._stage, self._started = name, time.perf_counter()

    def end_stage(self) -> tuple[int, int]:
        allocated, reserved = self._device.end_stage()
        self._note(self._stage, time.perf_counter() - self._started, allocated, reserved)
        return allocated, reserved
