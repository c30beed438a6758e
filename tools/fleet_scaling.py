"""How much faster a campaign on simulated cards is with more workers, and what a large fleet would take.

python -m tools.fleet_scaling [--workers 1 2] [--variants turbo base ...] [--tiers 8 ...] [--kinds 20] [--fleet 32]

For each number of workers a Ray node with so many cores is started on this machine's loopback, and the campaigns of the
variants run there one after another, as `python -m calibrate run --executor ray`. The machine has to be idle, with a
core for each worker.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from acestep.errors import Exit, NotMeasuredError
from acestep.knobs import Variant

SCALED_KIND: Final = "L4"
NODE_STARTED_S: Final = 60.0

ON_LOOPBACK: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
"""Nothing leaves this machine, and a worker computes on its own core."""

_PORTS: Final = count(6480)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each number of workers and the extrapolation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variants", nargs="+", default=[variant.value for variant in Variant])
    parser.add_argument("--tiers", nargs="*", default=[])
    parser.add_argument("--kinds", type=int, default=20)
    parser.add_argument("--fleet", type=int, default=32)
    asked = parser.parse_args(arguments)
    seconds: dict[int, float] = {}
    for workers in sorted(set(asked.workers)):
        try:
            seconds[workers] = _seconds(workers, asked.variants, asked.tiers)
        except NotMeasuredError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit
        gain = seconds[min(seconds)] / seconds[workers]
        sys.stdout.write(f"{workers} workers: {seconds[workers]:.0f} s, {gain:.2f} times as fast\n")
    hours = fleet_seconds(seconds, asked.kinds, asked.fleet) / 3600
    sys.stdout.write(f"Not run: {asked.kinds} kinds of card on {asked.fleet} workers would take {hours:.1f} h.\n")
    return Exit.OK


def fleet_seconds(seconds: dict[int, float], kinds: int, fleet: int) -> float:
    """What so many kinds of card take on a fleet of workers that work as well as the most that were measured.

    `seconds` are those of one kind by the number of workers.
    """
    most = max(seconds)
    return kinds * seconds[most] * most / fleet


def _seconds(workers: int, variants: Sequence[str], tiers: Sequence[str]) -> float:
    """The time of the campaigns on one kind of card with so many workers."""
    sizes = ("--tiers", *tiers) if tiers else ()
    with TemporaryDirectory(prefix="ray-") as place, _node(workers, Path(place)) as address:
        began = time.monotonic()
        for variant in variants:
            fleet = ("--executor", "ray", "--address", address, "--cards", SCALED_KIND)
            command = [sys.executable, "-m", "calibrate", "run", *fleet, "--variant", variant, *sizes, "-o", place]
            if (done := subprocess.run(command, env=_environment(place), check=False)).returncode:  # noqa: S603 ours
                raise NotMeasuredError(f"the campaign of {variant} ended with exit code {done.returncode}")
        return time.monotonic() - began


@contextmanager
def _node(cores: int, place: Path) -> Iterator[str]:
    """A cluster of one node that declares a card; it has ended when the context is left."""
    port = next(_PORTS)
    address = f"127.0.0.1:{port}"
    declared = ("--num-cpus", str(cores), "--resources", f'{{"accelerator_type:{SCALED_KIND}": 1}}')
    quiet = ("--include-dashboard=false", "--object-store-memory=100000000", "--block")
    start = ("ray.scripts.scripts", "start", "--head", "--port", str(port), "--node-ip-address", "127.0.0.1")
    with (place / "node.log").open("w") as log:
        node = subprocess.Popen(  # noqa: S603 our own interpreter
            [sys.executable, "-m", *start, *declared, *quiet], env=_environment(str(place)), stdout=log, stderr=log
        )
        try:
            _wait_for(address, node, str(place))
            yield address
        finally:
            node.terminate()
            node.wait(NODE_STARTED_S)


def _wait_for(address: str, node: "subprocess.Popen[bytes]", place: str) -> None:
    """Wait until the node answers; raises `NotMeasuredError` if it does not."""
    look = [sys.executable, "-m", "calibrate", "run", "--executor", "ray", "--address", address, "--dry-run"]
    deadline = time.monotonic() + NODE_STARTED_S
    while node.poll() is None and time.monotonic() < deadline:
        time.sleep(5)
        if not subprocess.run(look, env=_environment(place), capture_output=True, check=False).returncode:  # noqa: S603
            return
    raise NotMeasuredError("the Ray node did not start; is Ray installed (pip install -e '.[ray]')?")


def _environment(place: str) -> dict[str, str]:
    return {**os.environ, **ON_LOOPBACK, "RAY_TMPDIR": place}


if __name__ == "__main__":
    sys.exit(main())
