"""The thinking stage on the simulated card, for every number of songs in a pass.

It is traced separately from the stages after it: when it ends, only resident parts remain on the card, and the cache is
flushed, so that neither part affects the other.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Final

import msgspec
from torch import nn

from acestep.checkpoints.architecture import QwenArchitecture
from acestep.checkpoints.catalog import LM_ARCHITECTURES
from acestep.checkpoints.lm import LanguageModel
from acestep.devices.base import Device
from acestep.dit.place import StageContext
from acestep.errors import NotMeasuredError
from acestep.knobs import Backend as Library
from acestep.knobs import Knobs
from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm_memory import block_bytes, pool_for, vllm_footprint
from acestep.lm.job import Job
from acestep.lm.jobs import Planner
from acestep.lm.metadata import Metadata
from acestep.lm.stage import Thought
from acestep.lm.thinker import LANGUAGE_MODEL, LmThinker, even_passes
from acestep.lm.tokenizer import FULL_SIZE, BytePlannerTokenizer
from acestep.request import Request
from acestep.stage import Stage
from acestep.units import Progress
from calibrate.probes.rehearsal import Rehearsal, all_first_allowed, stretched
from calibrate.probes.simulated.full_size_lm import FirstAllowed, full_size_lm
from calibrate.probes.simulated.played import Played
from calibrate.probes.simulated.replay import ReplayResult, smallest_cap
from calibrate.probes.simulated.trace import ACTIVATIONS, StageUsage, stage_trace, stage_usage
from calibrate.probes.simulated.work_counter import WorkCounter
from calibrate.probes.simulated.writing import Counted, CountedWriting
from calibrate.probes.work import Work

BYTES_PER_VALUE: Final = 2
"""Of bfloat16, the type of weights and keys on the simulated card."""

Use = Callable[[], AbstractContextManager[None]]


class ThoughtThroughError(Exception):
    """Raised after thinking, to end a run whose later stages are not needed."""


class ThinkLadder:
    """Finds the largest number of songs in a pass that fits under a cap, as `acestep.lm.thinker` does.

    `played(n)` is a run up to the end of a pass of n songs, `least_bytes(n)` a lower bound of its memory.
    """

    def __init__(self, batch: int, played: Callable[[int], Played], least_bytes: Callable[[int], int]) -> None:
        self._sizes = tuple(even_passes(batch))
        self._played = played
        self._least_bytes = least_bytes

    def under(self, cap_bytes: int) -> tuple[int, ReplayResult]:
        """Return the songs in a pass and the replay's result; one song if nothing fits."""
        for songs in self._sizes:
            if songs > 1 and self._least_bytes(songs) > cap_bytes:
                continue
            outcome = self._played(songs).under(cap_bytes)
            if outcome.fits:
                break
        return songs, outcome

    def usage(self, songs: int) -> StageUsage:
        """What the stage holds with so many songs at once, whatever the cap."""
        return next(usage for usage in stage_usage(self._played(songs).trace) if usage.name == Stage.THINK)

    def work(self, songs: int) -> dict[str, Work]:
        """The work of thinking with so many songs at once."""
        return self._played(songs).work

    def smallest_caps(self) -> tuple[int, int]:
        """Return the smallest caps from which on every cap fits: of the stage alone, and of the run up to its end."""
        trace = self._played(1).trace
        return smallest_cap(stage_trace(trace, Stage.THINK)), smallest_cap(trace)


class VllmFootprint:
    """A backend that allocates and frees vLLM's footprint; its tokens are made up."""

    def __init__(self, architecture: QwenArchitecture, weight_bytes: int, device: Device) -> None:
        self._architecture = architecture
        self._weight_bytes = weight_bytes
        self._device = device

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return tokens that the jobs' grammars allow."""
        self.rehearse(jobs)
        written(1, 1)
        return all_first_allowed(jobs)

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the bytes of keys and values for these jobs, in whole blocks."""
        return pool_for(jobs).blocks * block_bytes(self._architecture, BYTES_PER_VALUE)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Hold the weights, the pool and the activations of a forward at the same time."""
        taken = vllm_footprint(
            self._architecture, pool_for(jobs), weight_bytes=self._weight_bytes, itemsize=BYTES_PER_VALUE
        )
        held = [self._device.reserve(taken.weight_bytes, LANGUAGE_MODEL)]
        held += [self._device.reserve(size, ACTIVATIONS) for size in (taken.cache_bytes, taken.activation_bytes)]
        del held

    def close(self) -> None:
        """Do nothing: no memory is kept."""


class Passing:
    """A backend that moves the weights in and out and makes up the tokens, for probes of the later stages."""

    def __init__(self, use: Use) -> None:
        self._use = use

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return tokens that the jobs' grammars allow."""
        with self._use():
            written(1, 1)
        return all_first_allowed(jobs)

    def cache_bytes(self, jobs: Sequence[Job]) -> int:  # noqa: ARG002 the protocol's
        """Return 0."""
        return 0

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: no memory is kept."""


class OnlyThinker(LmThinker):
    """Raises `ThoughtThroughError` after thinking."""

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:
        """Think, and end the run."""
        super().think(request, place, progress)
        raise ThoughtThroughError


def only_thinking(knobs: Knobs, at_once: int) -> LmThinker:
    """Return a thinker that takes the memory of thinking with `at_once` songs in a pass, and then ends the run."""
    model = _model(knobs)

    def rehearsed(device: Device, use: Use) -> LmBackend:
        if knobs.backend is Library.PT:
            return Rehearsal(PtBackend(model, device, use=use, chooser=FirstAllowed()))
        return Rehearsal(VllmFootprint(LM_ARCHITECTURES[_id(knobs)], _weight_bytes(model), device))

    return OnlyThinker(_planner(), rehearsed, _placed(knobs, model), at_once=at_once)


def counted_thinking(knobs: Knobs, at_once: int, counter: WorkCounter) -> tuple[LmThinker, Counted]:
    """Return a thinker that counts the work of writing all tokens, and then ends the run, and what it has counted."""
    model, counted = _model(knobs), Counted()

    def opened(device: Device, use: Use) -> LmBackend:
        return CountedWriting(PtBackend(model, device, use=use, chooser=FirstAllowed()), counter, counted)

    return OnlyThinker(_planner(), opened, _placed(knobs, model), at_once=at_once), counted


def hardly_thinking(knobs: Knobs) -> LmThinker:
    """Return a thinker that takes almost no memory and leaves the same behind as thinking."""
    return LmThinker(_planner(), lambda _, use: Passing(use), _placed(knobs, _model(knobs)))


def least_bytes(knobs: Knobs, request: Request) -> int:
    """Return a lower bound of the memory for thinking of a request's songs in one pass: their keys and values."""
    songs = _planner().compose_jobs(request, Metadata(), request.duration_s)
    heads = LM_ARCHITECTURES[_id(knobs)]
    values = 2 * heads.num_hidden_layers * heads.num_key_value_heads * heads.head_dim
    rows = (stretched(song) for song in songs)
    tokens = sum(len(row.prompt) + len(row.unguided) + 2 * row.max_tokens for row in rows)
    return tokens * values * BYTES_PER_VALUE


def thinking_request(request: Request) -> Request:
    """Return the request with thinking switched on and its length unchanged."""
    return msgspec.structs.replace(request, think=True)


def _id(knobs: Knobs) -> str:
    lm_id = f"acestep-5Hz-lm-{knobs.lm}"
    if lm_id not in LM_ARCHITECTURES:
        raise NotMeasuredError(f"there is no language model {knobs.lm} to simulate")
    return lm_id


def _model(knobs: Knobs) -> LanguageModel:
    if knobs.backend is Library.VLLM and knobs.lm_quantization is not None:
        raise NotMeasuredError("vLLM runs unquantized language models only; use --backend pt or --lm-quantization none")
    if knobs.backend is Library.MLX:
        raise NotMeasuredError("MLX runs on Apple GPUs, which are not simulated; use --backend pt")
    return full_size_lm(_id(knobs), knobs.lm_quantization)


def _placed(knobs: Knobs, model: LanguageModel) -> dict[str, nn.Module]:
    return {LANGUAGE_MODEL: model.module} if knobs.backend is Library.PT else {}


@cache
def _planner() -> Planner:
    return Planner(BytePlannerTokenizer(FULL_SIZE))


def _weight_bytes(model: LanguageModel) -> int:
    unique = {id(weight): weight for weight in model.module.parameters()}
    return sum(weight.nelement() * weight.element_size() for weight in unique.values())
