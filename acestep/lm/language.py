"""A language model ready for use: its tokenizer, its weights if we place them, and its backend."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import torch
from torch import nn

from acestep.checkpoints import catalog
from acestep.checkpoints.catalog import DUMMY_PREFIX, TINY
from acestep.checkpoints.configs import qwen_architecture_in
from acestep.checkpoints.lm import LanguageModel, build_lm, load_lm, quantize_lm
from acestep.checkpoints.locate import locate_lm
from acestep.devices.base import Device
from acestep.devices.cpu import weights_dtype
from acestep.errors import InvalidInputError
from acestep.knobs import Backend as Library
from acestep.knobs import Knobs, Offload
from acestep.lm.backends.base import LmBackend
from acestep.lm.backends.open import Opener
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm_memory import pool_of
from acestep.lm.job import Job
from acestep.lm.jobs import Planner
from acestep.lm.packed import pack_layers
from acestep.lm.products import Products
from acestep.lm.thinker import LmThinker, write_in_passes
from acestep.lm.tokenizer import COMPACT, FULL_SIZE, BytePlannerTokenizer, HubPlannerTokenizer, PlannerTokenizer
from acestep.lm.vocabulary import CODES_PER_SECOND
from acestep.memory.packed import packs
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from acestep.stage import Stage
from acestep.thinking import LONGEST_PROMPT_TOKENS
from acestep.units import Progress

GUIDANCE_PAIR: Final = 2
"""Sequences of one guided song: conditional and unconditional."""

Warn = Callable[[str], None]

WrapBackend = Callable[[LmBackend], LmBackend]
"""Called with every backend that is opened; returns it, or a wrapper that records its calls."""


def not_wrapped(backend: LmBackend) -> LmBackend:
    """Return the backend unchanged."""
    return backend


class Language:
    """The language model `name`, run as `knobs` say on `device`; songs are planned up to `longest_s` seconds.

    `name` is what `acestep.checkpoints.lm.load_lm` takes. With `apart` the device is its own: the weights stay on it
    from the first use to `close`, and are no part of the pipeline's placement. `warn` is called with a sentence if
    another backend than the requested one is used. Raises `InvalidInputError` when the weights are missing.
    """

    def __init__(
        self,
        name: str,
        knobs: Knobs,
        device: Device,
        *,
        longest_s: int,
        warn: Warn,
        wrap: WrapBackend = not_wrapped,
        apart: bool = False,
    ) -> None:
        self._name = name
        self._knobs = knobs
        self._device = device
        self._wrap = wrap
        made_here = name == TINY or name.startswith(DUMMY_PREFIX)
        self.is_noise = name.split(":")[0] if made_here else None
        self._folder = Path() if made_here else locate_lm(name, catalog.checkpoints_dir())
        tokenizer = _tokenizer(name, self._folder)
        self._least_vocabulary = tokenizer.vocabulary.codes.stop
        if not made_here:
            # Before another library reads the folder, and before weights are read.
            self._require_codes(qwen_architecture_in(self._folder).vocab_size)
        self.planner = Planner(tokenizer)
        library = Library.PT if made_here or knobs.lm_quantization is not None else knobs.backend
        longest = LONGEST_PROMPT_TOKENS + longest_s * CODES_PER_SECOND + 1
        self._opener = Opener(library, self._folder, pool_of(GUIDANCE_PAIR, longest), warn)
        self._loaded: LanguageModel | None = None
        self._products = Products(device)
        self._apart = apart
        self._kept: Placement | None = None
        if library is Library.PT:
            self._model()

    def modules(self) -> Mapping[str, nn.Module]:
        """The weights to place, by name; empty if the backend keeps its own."""
        return {LANGUAGE_MODEL: self._model().module} if self._loaded is not None else {}

    def thinker(self) -> LmThinker:
        """Return the thinking stage of the pipeline with this model."""
        if self._apart:
            return LmThinker(
                self.planner, lambda device, _: self.open(device, self._alone), {}, end=self.close, device=self._device
            )
        return LmThinker(self.planner, self.open, self.modules(), end=self.close)

    def open(self, device: Device, use: Callable[[], AbstractContextManager[None]]) -> LmBackend:
        """Return the backend for one use."""
        placed = self._loaded is not None

        def ours() -> PtBackend:
            return PtBackend(self._model(), device, use=use if placed else self._alone, products=self._products)

        return self._wrap(self._opener.open(device, ours))

    def write(self, jobs: Sequence[Job], progress: Progress) -> list[tuple[int, ...]]:
        """Return the tokens written for some jobs, on a device that holds nothing else."""

        def written(step: int, most: int) -> None:
            progress(Stage.THINK, step, most)

        backend = self.open(self._device, self._alone)
        try:
            with torch.no_grad():
                return write_in_passes(jobs, backend, self._device, written)[0]
        finally:
            backend.close()

    def close(self) -> None:
        """Free what the backend keeps between uses."""
        self._opener.close()
        if self._kept is not None:
            self._kept.release()
            self._kept = None

    def _require_codes(self, held: int) -> None:
        needed = self._least_vocabulary
        if held < needed:
            raise InvalidInputError(
                self._folder, f"has weights for {held:,} tokens, and its audio codes need {needed:,}"
            )

    def _alone(self) -> AbstractContextManager[None]:
        if self._apart:
            if self._kept is None:
                self._kept = Placement({LANGUAGE_MODEL: self._model().module}, (), Offload.NONE, self._device)
            self._kept.settle()
            return nullcontext()
        placement = Placement({LANGUAGE_MODEL: self._model().module}, (), Offload.CPU_DIT, self._device)
        return placement.use(LANGUAGE_MODEL)

    def _model(self) -> LanguageModel:
        """The weights, loaded once: by the constructor, or when PyTorch replaces another backend."""
        if self._loaded is None:
            tiny = self._name == TINY
            dtype = weights_dtype(self._device, tiny=tiny)
            model = (
                build_lm("tiny", dtype=dtype, vocab_size=COMPACT.size)
                if tiny
                else load_lm(
                    self._name,
                    dtype=dtype,
                    quantization=self._knobs.lm_quantization,
                    packed=self._device.shares_host_memory and packs(dtype),
                )
            )
            self._require_codes(model.vocabulary)
            if self._knobs.lm_quantization is not None:
                quantize_lm(model, self._knobs.lm_quantization)
            # The weights of a model that is noise share a few pages of memory, and packed ones would not.
            if self._device.shares_host_memory and model.is_noise is None:
                pack_layers(model.module.model)
            self._loaded = model
        return self._loaded


def _tokenizer(name: str, folder: Path) -> PlannerTokenizer:
    if name == TINY:
        return BytePlannerTokenizer(COMPACT)
    return BytePlannerTokenizer(FULL_SIZE) if name.startswith(DUMMY_PREFIX) else HubPlannerTokenizer(folder)
