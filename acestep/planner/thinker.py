"""A language model as the pipeline's thinking stage."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import msgspec
from torch import nn

from acestep.devices.base import Device
from acestep.planner.backends.base import Backend
from acestep.planner.planner import Planner
from acestep.planner.writing import write_in_passes
from acestep.progress import Progress
from acestep.request import Request, Task
from acestep.stages.place import Place
from acestep.stages.think import Thought

LANGUAGE_MODEL = "lm"
"""The name of the language model among the parts that are placed."""


OpenBackend = Callable[[Device, Callable[[], AbstractContextManager[None]]], Backend]
"""Opens what runs a model on a device; inside the context that it is given the placed weights are there."""


class LmThinker:
    """Plans songs with a language model.

    What `open_backend` opens is closed after every use. `modules` are the weights that are placed with the pipeline's
    own, none where the backend keeps its own. `at_once` above 0 fixes the songs of a pass; `end` is called at the end.
    """

    def __init__(
        self,
        planner: Planner,
        open_backend: OpenBackend,
        modules: Mapping[str, nn.Module],
        *,
        at_once: int = 0,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._planner = planner
        self._open_backend = open_backend
        self._modules = modules
        self._at_once = at_once
        self._end = end

    def modules(self) -> Mapping[str, nn.Module]:
        """The weights that are placed with the pipeline's own."""
        return self._modules

    def think(self, request: Request, place: Place, progress: Progress) -> Thought:
        """The request completed, and the audio codes of its songs where they are wanted."""
        planner = self._planner

        def written(step: int, most: int) -> None:
            progress("think", step, most)

        backend = self._open_backend(place.device, lambda: self._use(place))
        try:
            plan, _ = write_in_passes(planner.plan_jobs(request), backend, place.device, written)
            thought = planner.thought(request, plan)
            completed = planner.completed(request, thought)
            warnings = planner.cut_warnings(request)
            if not request.thinking.codes:
                return Thought(request=completed, songs_per_pass=request.batch, warnings=warnings)
            jobs = planner.compose_jobs(request, thought, completed.duration_s)
            songs, at_once = write_in_passes(jobs, backend, place.device, written, self._at_once)
        finally:
            backend.close()
        codes = planner.codes(songs)
        covering = msgspec.structs.replace(completed, task=Task.COVER, audio_codes=codes[0])
        return Thought(request=covering, codes=codes, songs_per_pass=at_once, warnings=warnings)

    def _use(self, place: Place) -> AbstractContextManager[None]:
        return place.placement.use(LANGUAGE_MODEL) if self._modules else nullcontext()

    def close(self) -> None:
        """Give back what the backend keeps between calls."""
        self._end()
