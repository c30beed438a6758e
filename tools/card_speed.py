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
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import diffusers
import msgspec
import torch

from acestep.checkpoints.catalog import SIZES
from acestep.errors import Exit
from acestep.output_file import output_file
from acestep.request import Request
from calibrate.files import pretty_json
from tools.speed_bench import Ceilings, SpeedBench, SpeedPoint, SpeedSide, WeightsPlace

LYRICS = "\n".join(f"[verse {n}]\nslow water under the bridge, la la la la" for n in range(12))


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """The file: what was run, on what, and every point. Factors above 1 mean faster than the song plays."""

    command: str
    card: str
    torch: str
    diffusers: str
    model: str
    ceilings: Ceilings
    points: tuple[SpeedPoint, ...] = ()


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
