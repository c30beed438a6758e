"""Times one song of our pipeline, or of the library's, with the same random weights, and computes its floor.

`tools.card_speed` runs it for many songs and compares the two sides.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import nn

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import SIZES
from acestep.checkpoints.components import Components
from acestep.devices.accelerator import CudaDevice
from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice
from acestep.dit.sampler import steps_for
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Offload, Variant
from acestep.request import Request
from acestep.units import GIB, MIB
from calibrate.table.policy import budget_bytes, load_policy
from tests.library import library_arguments, library_pipeline
from tools.work_of_a_song import song_flops, weightless

MATRIX = {"cuda": 8192, "cpu": 512}
"""Rows and columns of the matrix product that measures the rate of multiplications."""

COPIED_BYTES = {"cuda": 4 * GIB, "cpu": 16 * MIB}
"""Bytes copied to measure the memory bandwidth; larger than any cache on a card."""

SMALL_CARD_GIB = 4.0
"""Ten minutes of audio must fit under the budget of a card of this size."""


class SpeedSide(StrEnum):
    """The pipeline: ours or the library's."""

    OURS = "ours"
    LIBRARY = "library"


class WeightsPlace(StrEnum):
    """Where unused weights are; `small` is under the cap of the smallest card."""

    RESIDENT = "resident"
    OFFLOADED = "offloaded"
    SMALL = "small"


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of this device: operations per second in a product, bytes read and written per second in a copy."""

    flops_per_s: float
    bytes_per_s: float


class SpeedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One side at one batch and length. `floor_share` is the floor's time as a share of the time taken.

    A point with a `problem` ran out of memory or could not be run by the libraries here; its numbers are 0.
    """

    side: SpeedSide
    place: WeightsPlace
    batch: int
    duration_s: float
    seconds: float = 0.0
    peak_reserved_bytes: int = 0
    realtime_factor: float = 0.0
    flops: int = 0
    weight_bytes: int = 0
    floor_share: float = 0.0
    problem: str = ""


class SpeedBench:
    """One device with the same weights twice: ours as prepared for running, the library's as it loads them."""

    def __init__(self, model: str, *, rounds: int) -> None:
        self.on_card = torch.cuda.is_available()
        self.device: Device = CudaDevice() if self.on_card else CpuDevice()
        self._dtype = torch.bfloat16 if self.on_card else torch.float32
        self._model = model
        self._rounds = rounds
        self._flops: dict[tuple[int, float], int] = {}

    def ceilings(self) -> Ceilings:
        """Measure the rates now."""
        kind = self.device.torch_device.type
        matrix = torch.randn(MATRIX[kind], MATRIX[kind], device=self.device.torch_device, dtype=self._dtype)
        source = torch.randint(255, (COPIED_BYTES[kind],), dtype=torch.uint8, device=self.device.torch_device)
        target = torch.empty_like(source)
        product_s = self._best(lambda: matrix @ matrix, rounds=10)
        copy_s = self._best(lambda: target.copy_(source), rounds=10)
        return Ceilings(flops_per_s=2 * MATRIX[kind] ** 3 / product_s, bytes_per_s=2 * COPIED_BYTES[kind] / copy_s)

    def point(self, side: SpeedSide, place: WeightsPlace, request: Request, ceilings: Ceilings) -> SpeedPoint:
        """Return one point, warmed up, timed, and compared with the floor."""
        where = SpeedPoint(side=side, place=place, batch=request.batch, duration_s=request.duration_s)
        problem = ""
        try:
            seconds, peak = self._timed(side, place, request)
        except torch.OutOfMemoryError as error:
            problem = str(error).splitlines()[0]
        except torch.AcceleratorError:
            # After this error the card gives this process no valid results, so all later points are refused.
            raise
        except Exception as error:
            # An error of one side must not stop the points of the other.
            problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        # Outside the except block, because inside it the traceback keeps every temporary of the failed run alive.
        self._clean()
        if problem:
            return msgspec.structs.replace(where, problem=problem)
        flops, weights = self._work(request)
        floor = max(flops / ceilings.flops_per_s, weights / ceilings.bytes_per_s)
        return msgspec.structs.replace(
            where,
            seconds=seconds,
            peak_reserved_bytes=peak,
            realtime_factor=request.batch * request.duration_s / seconds,
            flops=flops,
            weight_bytes=weights,
            floor_share=floor / seconds,
        )

    def _timed(self, side: SpeedSide, place: WeightsPlace, request: Request) -> tuple[float, int]:
        with (self._ours if side is SpeedSide.OURS else self._library)(place) as run:
            run(msgspec.structs.replace(request, steps=1))
            self._clean()
            if self.on_card:
                torch.cuda.reset_peak_memory_stats()
            seconds = self._best(lambda: run(request), rounds=self._rounds)
            return seconds, torch.cuda.max_memory_reserved() if self.on_card else 0

    @cached_property
    def _prepared(self) -> Components:
        components = build(SIZES[self._model], Variant.TURBO, dtype=self._dtype)
        prepare(components, Knobs())
        return components

    @cached_property
    def _weightless(self) -> Components:
        return weightless(self._model, Variant.TURBO)

    @cached_property
    def _library_s(self) -> tuple[Components, Any]:
        components = build(SIZES[self._model], Variant.TURBO, dtype=self._dtype)
        pipe = library_pipeline(components)
        pipe.vae.enable_tiling()
        if self.on_card:
            pipe.transformer.compile()
        return components, pipe

    @contextmanager
    def _ours(self, place: WeightsPlace) -> Iterator[Callable[[Request], object]]:
        knobs = Knobs(offload=_OFFLOAD[place], compile=self.on_card)
        capped = self.on_card and place is WeightsPlace.SMALL
        device = CudaDevice(budget_bytes(SMALL_CARD_GIB, load_policy())) if capped else self.device
        pipeline = Pipeline(self._prepared, knobs, device)
        try:
            yield lambda request: pipeline.generate(request, strict=True)
        finally:
            pipeline.close()
            if capped:
                torch.cuda.set_per_process_memory_fraction(1.0)

    @contextmanager
    def _library(self, place: WeightsPlace) -> Iterator[Callable[[Request], object]]:
        components, pipe = self._library_s
        if self.on_card and place is WeightsPlace.RESIDENT:
            pipe.to("cuda")
        elif self.on_card:
            pipe.enable_model_cpu_offload()

        def run(request: Request) -> object:
            generator = torch.Generator().manual_seed(request.seed)
            return pipe(generator=generator, **library_arguments(components, request)).audios.float().cpu()

        # Our device disables cuDNN's attention for the whole process, and the library is faster with it.
        ours = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
        torch.backends.cuda.enable_cudnn_sdp(True)
        try:
            yield run
        finally:
            torch.backends.cuda.enable_cudnn_sdp(ours)
            pipe.remove_all_hooks()
            pipe.to("cpu")

    def _work(self, request: Request) -> tuple[int, int]:
        """Return the operations of a request, counted without the card, and the bytes of weights read."""
        key = (request.batch, request.duration_s)
        if key not in self._flops:
            self._flops[key] = song_flops(self._weightless, request)
        parts = {name: _bytes_of(part) for name, part in self._prepared.modules().items()}
        once = sum(parts[name] for name in ("text_encoder", "condition_encoder", "vae_decoder"))
        return self._flops[key], once + steps_for(Variant.TURBO, request.steps) * parts["transformer"]

    def _best(self, run: Callable[[], object], *, rounds: int) -> float:
        taken = []
        for _ in range(rounds):
            self.device.synchronize()
            started = time.perf_counter()
            run()
            self.device.synchronize()
            taken.append(time.perf_counter() - started)
        return min(taken)

    def _clean(self) -> None:
        gc.collect()
        self.device.empty_cache()


_OFFLOAD = {
    WeightsPlace.RESIDENT: Offload.NONE,
    WeightsPlace.OFFLOADED: Offload.CPU_DIT,
    WeightsPlace.SMALL: Offload.CPU_DIT,
}


def _bytes_of(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
