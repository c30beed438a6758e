"""Compares our pipeline with the library's on one card, with the same random weights of full size, in one run.

python -m tools.card_speed -o FILE [--resume] [--model dummy] [--durations 30 120 240 600] [--batches 1 4]

Each side has its own best settings: ours compiled, with its own offload; the library's with its transformer compiled,
its tiled decoding, and its own offload of whole models. Every point is warmed up, then timed from the request to the
audio on the host, and the best of several runs counts; memory is the allocator's peak over those. The file is written
after every point, and `--resume` measures what is missing in it.

The floor of a point is the time of its work at the rates measured on this device: its multiplications at the rate of a
large matrix product, or each weight read once per use at the rate of a large copy, whichever takes longer. Without a
card both run on the CPU with toy weights, resident and uncompiled, and no memory is counted.
"""

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
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
from acestep.errors import Exit
from acestep.knobs import Knobs, Offload, Variant
from acestep.output_file import output_file
from acestep.request import Request
from acestep.units import GIB, MIB
from calibrate.files import pretty_json
from calibrate.table.policy import budget_bytes, load_policy
from tests.library import library_arguments, library_pipeline
from tools.work_of_a_song import song_flops, weightless

MATRIX = {"cuda": 8192, "cpu": 512}
"""Rows and columns of the matrix product that measures the rate of multiplications."""

COPIED_BYTES = {"cuda": 4 * GIB, "cpu": 16 * MIB}
"""Bytes copied to measure the memory bandwidth; larger than any cache on a card."""

SMALL_CARD_GIB = 4.0
"""Ten minutes of audio must fit under the budget of a card of this size."""

LYRICS = "\n".join(f"[verse {n}]\nslow water under the bridge, la la la la" for n in range(12))


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

    A point with a `problem` ran out of memory or could not be run by the libraries here, and its numbers are 0.
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


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """The file: what was run, on what, and every point. Factors above 1 mean faster than the song plays."""

    command: str
    card: str
    torch: str
    diffusers: str
    model: str
    ceilings: Ceilings
    points: tuple[SpeedPoint, ...] = ()


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


def wanted_cases(durations: Sequence[float], batches: Sequence[int], *, on_card: bool) -> Iterator[SpeedPoint]:
    """Every point in the order in which it is measured: both sides of a comparison one after the other."""
    for duration in durations:
        for batch in batches:
            for place in (WeightsPlace.RESIDENT, WeightsPlace.OFFLOADED) if on_card else (WeightsPlace.RESIDENT,):
                for side in SpeedSide:
                    yield SpeedPoint(side=side, place=place, batch=batch, duration_s=duration)
    if on_card:
        yield SpeedPoint(side=SpeedSide.OURS, place=WeightsPlace.SMALL, batch=1, duration_s=max(durations))


def measure(bench: SpeedBench, asked: Sequence[SpeedPoint], speeds: Speeds, keep: Callable[[Speeds], None]) -> Speeds:
    """Add every missing point, and save the file after each."""
    for point in asked:
        if _name(point) in {_name(known) for known in speeds.points}:
            continue
        request = Request(caption="slow piano", lyrics=LYRICS, duration_s=point.duration_s, batch=point.batch, seed=7)
        found = bench.point(point.side, point.place, request, speeds.ceilings)
        speeds = msgspec.structs.replace(speeds, points=(*speeds.points, found))
        keep(speeds)
        sys.stderr.write(f"{_name(found)}: {found.problem or f'{found.seconds:.2f} s'}\n")
    return speeds


def compared(speeds: Speeds) -> list[str]:
    """Return a line for each comparison: the speed-up over the library, and our share of its memory."""
    by_name = {_name(point): point for point in speeds.points}
    lines = []
    for ours in (point for point in speeds.points if point.side is SpeedSide.OURS and not point.problem):
        what = f"{ours.batch} x {ours.duration_s:g} s, {ours.place}"
        alone = f"{what}: {ours.realtime_factor:.1f} times real time, {ours.floor_share:.0%} of the floor's rate"
        theirs = by_name.get(_name(msgspec.structs.replace(ours, side=SpeedSide.LIBRARY)))
        if theirs is None or theirs.problem:
            lines.append(f"{alone}; the library: {theirs.problem if theirs else 'not asked'}")
            continue
        memory = ours.peak_reserved_bytes / theirs.peak_reserved_bytes if theirs.peak_reserved_bytes else math.nan
        share = "" if math.isnan(memory) else f" at {memory:.0%} of its memory"
        lines.append(f"{alone}; {theirs.seconds / ours.seconds:.2f} times as fast as the library{share}")
    return lines


def _name(point: SpeedPoint) -> str:
    return f"{point.side} {point.place} {point.batch} x {point.duration_s:g} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    options = _options(arguments)
    if options.model == "dummy" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA card was found; without one, only --model tiny is compared\n")
        return Exit.NOT_MEASURED
    bench = SpeedBench(options.model, rounds=options.rounds)
    speeds = Speeds(
        command="python -m tools.card_speed " + " ".join(sys.argv[1:] if arguments is None else arguments),
        card=torch.cuda.get_device_name() if bench.on_card else "cpu",
        torch=str(torch.__version__),
        diffusers=diffusers.__version__,
        model=options.model,
        ceilings=bench.ceilings(),
    )
    if options.resume and options.output.exists():
        before = msgspec.json.decode(options.output.read_bytes(), type=Speeds)
        if (before.card, before.torch, before.model) != (speeds.card, speeds.torch, speeds.model):
            sys.exit(f"{options.output} was measured on {before.card} with torch {before.torch}; choose another file")
        speeds = before

    def keep(so_far: Speeds) -> None:
        with output_file(options.output) as write:
            write(pretty_json(so_far))

    asked = list(wanted_cases(options.durations, options.batches, on_card=bench.on_card))
    for line in compared(measure(bench, asked, speeds, keep)):
        sys.stdout.write(line + "\n")
    return Exit.OK


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--resume", action="store_true", help="measure what is missing in the file")
    parser.add_argument("--model", choices=sorted(SIZES), default="dummy", help="sizes of the weights")
    parser.add_argument("--durations", type=float, nargs="+", default=[30.0, 120.0, 240.0, 600.0], metavar="SECONDS")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of which the best counts")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
