"""The pipeline's thinking stage with a language model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec
import torch
from torch import nn

from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused, one_out_of_memory_error
from acestep.dit.place import StageContext
from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.job import Job
from acestep.lm.jobs import Planner
from acestep.lm.stage import Thought

# The simulator imports it from here; the gate finds every change of the simulator's own files `inconclusive` (G204).
from acestep.memory.placement import LANGUAGE_MODEL as LANGUAGE_MODEL
from acestep.request import Request, Task
from acestep.stage import Stage
from acestep.units import Progress, ceil_div


def write_in_passes(
    jobs: Sequence[Job], backend: LmBackend, device: Device, written: StepsWritten, at_once: int = 0
) -> tuple[list[tuple[int, ...]], int]:
    """Write the jobs in as few passes as fit; return the tokens of each job and the number of jobs in a pass.

    First all jobs in one pass, then two passes of even size, three, and so on; `at_once` above 0 is the only size
    tried. Raises `torch.OutOfMemoryError` when not even one job fits.
    """
    tokens: list[tuple[int, ...]] = []
    if not jobs:
        return tokens, 0
    sizes = [at_once] if at_once else list(even_passes(len(jobs)))
    for size in sizes:
        # Keys and values are allocated first and are the largest part, so a pass that cannot fit fails quickly.
        if size > 1 and not at_once and backend.cache_bytes(jobs[:size]) > device.free_bytes():
            continue
        try:
            with one_out_of_memory_error():
                while len(tokens) < len(jobs):
                    if tokens:
                        # Weights would be put into what the last pass used, and leave no piece for keys and values.
                        device.empty_cache()
                    tokens += backend.write(jobs[len(tokens) : len(tokens) + size], written)
            return tokens, size
        except torch.OutOfMemoryError:
            if size == sizes[-1]:
                raise
        free_unused(device)
    raise AssertionError("the last size returns or raises")


def even_passes(jobs: int) -> Iterator[int]:
    """Yield the number of jobs in a pass for one pass, two passes, and so on down to one job; each size once."""
    last = 0
    for passes in range(1, jobs + 1):
        size = ceil_div(jobs, passes)
        if size != last:
            yield size
        last = size


OpenBackend = Callable[[Device, Callable[[], AbstractContextManager[None]]], LmBackend]
"""Opens the backend that runs a model on a device; the placed weights are there inside the given context."""


class LmThinker:
    """Plans songs with a language model.

    The backend that `open_backend` opens is closed after every use. `modules` are the weights that are placed together
    with the pipeline's own; empty if the backend keeps its own. `device` is its own device, None if it uses the
    pipeline's. `at_once` above 0 fixes the number of songs in a pass; `close` calls `end`.
    """

    def __init__(
        self,
        planner: Planner,
        open_backend: OpenBackend,
        modules: Mapping[str, nn.Module],
        *,
        at_once: int = 0,
        end: Callable[[], None] = lambda: None,
        device: Device | None = None,
    ) -> None:
        self._planner = planner
        self._open_backend = open_backend
        self._modules = modules
        self._at_once = at_once
        self._end = end
        self._device = device

    def modules(self) -> Mapping[str, nn.Module]:
        return self._modules

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:
        planner, device = self._planner, self._device or place.device

        def written(step: int, most: int) -> None:
            progress(Stage.THINK, step, most)

        backend = self._open_backend(device, lambda: self._use(place))
        try:
            plan, _ = write_in_passes(planner.plan_jobs(request), backend, device, written)
            thought = planner.thought(request, plan)
            completed = planner.completed(request, thought)
            warnings = planner.cut_warnings(request)
            if not request.thinking.codes:
                return Thought(request=completed, songs_per_pass=request.batch, warnings=warnings)
            jobs = planner.compose_jobs(request, thought, completed.duration_s)
            songs, at_once = write_in_passes(jobs, backend, device, written, self._at_once)
        finally:
            backend.close()
        codes = planner.codes(songs)
        covering = msgspec.structs.replace(completed, task=Task.COVER, audio_codes=codes[0])
        return Thought(request=covering, codes=codes, songs_per_pass=at_once, warnings=warnings)

    def _use(self, place: StageContext) -> AbstractContextManager[None]:
        return place.placement.use(LANGUAGE_MODEL) if self._modules else nullcontext()

    def close(self) -> None:
        self._end()
