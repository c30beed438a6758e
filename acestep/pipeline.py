"""The stages of a song in order: encode the words, denoise the latents, decode the audio.

Nothing here reads a value back from the device: lengths, schedules and masks come from Python numbers, so the same
code runs on a card, on the CPU, and on meta tensors when the simulator counts what it would take.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acestep.devices.base import Device
from acestep.errors import RunFailedError
from acestep.knobs import Knobs
from acestep.memory.placement import Placement
from acestep.memory.quantize import quantize
from acestep.memory.vae_decode import fold_weight_norm
from acestep.models.components import Components
from acestep.progress import Progress, silent
from acestep.request import Request, Result, StageReport
from acestep.stages.decode import decode
from acestep.stages.denoise import denoise
from acestep.stages.encode import encode
from acestep.stages.place import Place


def prepare(components: Components, knobs: Knobs) -> None:
    """Bring freshly loaded weights into the form they run in: weight norm folded, linear layers quantised."""
    fold_weight_norm(components.vae)
    if knobs.quantization is not None:
        quantize(components.transformer, knobs.quantization)


class Pipeline:
    """Songs from requests, with prepared weights, placed on a device as the knobs say."""

    def __init__(self, components: Components, knobs: Knobs, device: Device) -> None:
        blocks = list(components.transformer.layers)
        placement = Placement(components.modules(), blocks, knobs.offload, device)
        self._place = Place(components=components, knobs=knobs, device=device, placement=placement)
        placement.settle()

    def close(self) -> None:
        """Take everything off the device; the pipeline is of no use afterwards."""
        self._place.placement.release()

    @torch.no_grad()
    def generate(self, request: Request, *, strict: bool = False, progress: Progress = silent) -> Result:
        """Make the songs of a request.

        `strict` is for probes: an out-of-memory error comes out as it is instead of as `RunFailedError` with advice.
        """
        try:
            return self._run(request, progress)
        except torch.OutOfMemoryError as error:
            if strict:
                raise
            problem = str(error).splitlines()[0]
        # Outside the except block: inside it the traceback would keep every temporary of the failed run alive.
        gc.collect()
        self._place.device.empty_cache()
        raise RunFailedError(
            f"The card ran out of memory ({problem}). Try fewer songs at once, a shorter song, or more offload,"
            " for example `--batch 1 --offload cpu+dit --quantization int8`."
        )

    def _run(self, request: Request, progress: Progress) -> Result:
        stages: list[StageReport] = []
        with self._stage("encode", 1, stages):
            conditions = encode(request, self._place)
            progress("encode", 1, 1)
        with self._stage("denoise", request.batch, stages):
            latents = denoise(request, conditions, self._place, progress)
        del conditions
        with self._stage("decode", 1, stages):
            songs, decode_path = decode(request, latents, self._place, progress)
        return Result(
            songs=songs,
            stages=tuple(stages),
            songs_per_pass=request.batch,
            decode_path=decode_path,
            warnings=(),
        )

    @contextmanager
    def _stage(self, name: str, songs_per_pass: int, reports: list[StageReport]) -> Iterator[None]:
        device = self._place.device
        device.synchronize()
        device.empty_cache()
        device.begin_stage(name)
        started = time.perf_counter()
        try:
            yield
            device.synchronize()
        finally:
            seconds = time.perf_counter() - started
            allocated, reserved = device.end_stage()
        reports.append(
            StageReport(
                name=name,
                seconds=seconds,
                songs_per_pass=songs_per_pass,
                peak_allocated_bytes=allocated,
                peak_reserved_bytes=reserved,
            )
        )
