"""Campaigns on a Ray node of this machine's loopback, and the CPU seconds that their processes take."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
import psutil

from acestep.errors import NotMeasuredError
from calibrate.executors.questions import Probed, Question
from calibrate.executors.remote import WorkerAnswer
from calibrate.record.measurement import Measurement, load_measurement

NODE_STARTED_S: Final = 180.0

ON_LOOPBACK: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
"""Nothing leaves this machine, and a worker computes on its own core."""

_WORKER: Final = "ray::CardWorker"
_ANSWERING: Final = "ray::CardWorker.answer"
"""The beginning of the title that Ray gives to a process with a worker, and to one with a task."""

_LOOK_S: Final = 0.5

_PORTS: Final = count(6480)


class FleetRun(msgspec.Struct, frozen=True, kw_only=True):
    """Campaigns that ran at once on so many workers: times in seconds, and the messages to and from the workers.

    `workers_cpu_s` has an entry for each process of a worker; a campaign starts its own. `starts_cpu_s` is the part of
    all of them before their first tasks.
    """

    workers: int
    wall_s: float
    workers_cpu_s: tuple[float, ...]
    starts_cpu_s: float
    driver_cpu_s: float
    answers: int
    message_bytes: int

    @property
    def worker_cpu_s(self) -> float:
        """That of all processes of workers."""
        return sum(self.workers_cpu_s)


def run_at_once(
    workers: int, kinds: Sequence[str], variants: Sequence[str], options: Sequence[str], place: Path, until: float
) -> FleetRun:
    """Run the campaigns of all variants and kinds of card on a new node with so many cores.

    Raises `NotMeasuredError` if one fails, or where they have not ended at `until` on the monotonic clock.
    """
    with (
        _node(workers, kinds, place) as (address, node),
        _cpu_of_workers(node) as (starts_s, cpu_s),
        ExitStack() as logs,
    ):
        fleet = ("--executor", "ray", "--address", address, "--cards", ",".join(kinds))
        began = time.monotonic()
        drivers = {
            variant: subprocess.Popen(  # noqa: S603 our own interpreter
                [sys.executable, "-m", "calibrate", "run", *fleet, "--variant", variant, *options, "-o", str(place)],
                env=_environment(place),
                stdout=subprocess.DEVNULL,
                stderr=logs.enter_context((place / f"{variant}.log").open("wb")),
            )
            for variant in variants
        }
        driver_cpu_s = 0.0
        try:
            for variant, driver in drivers.items():
                driver_cpu_s += _ended(variant, driver, place, until)
        finally:
            for driver in drivers.values():
                driver.kill()
                driver.wait()
        wall_s = time.monotonic() - began
    records = [load_measurement(path) for path in place.glob("simulated-*.json")]
    answers, message_bytes = _messages(records)
    return FleetRun(
        workers=workers,
        wall_s=wall_s,
        workers_cpu_s=tuple(cpu_s.values()),
        starts_cpu_s=sum(starts_s.values()),
        driver_cpu_s=driver_cpu_s,
        answers=answers,
        message_bytes=message_bytes,
    )


def _ended(variant: str, driver: "subprocess.Popen[bytes]", place: Path, until: float) -> float:
    """Wait for a driver, and return its CPU seconds."""
    watched, seconds = psutil.Process(driver.pid), 0.0
    while driver.poll() is None:
        if time.monotonic() > until:
            raise NotMeasuredError(f"the campaign of {variant} has not ended in time; choose fewer --variants")
        with suppress(psutil.Error):
            seconds = sum(watched.cpu_times()[:2])
        time.sleep(_LOOK_S)
    if driver.returncode:
        told = _last_line(place / f"{variant}.log")
        raise NotMeasuredError(f"the campaign of {variant} ended with exit code {driver.returncode}: {told}")
    return seconds


def _messages(records: Sequence[Measurement]) -> tuple[int, int]:
    """The number of answers in records, and the bytes of the messages that ask for them and bring them."""
    sent = 0
    for record in records:
        for probe in record.probes:
            task = Question(knobs=probe.knobs, workload=probe.workload, cap_bytes=probe.cap_bytes)
            answer = WorkerAnswer(entry=Probed(task=task, probe=probe), conditions=record.conditions)
            sent += len(msgspec.json.encode(task)) + len(msgspec.json.encode(answer))
    return sum(len(record.probes) for record in records), sent


@contextmanager
def _cpu_of_workers(node: psutil.Process) -> Iterator[tuple[dict[int, float], dict[int, float]]]:
    """Yield the CPU seconds of every process of a worker, by its id: before its first task, and all so far."""
    starts: dict[int, float] = {}
    seconds: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            with suppress(psutil.Error):
                for process in node.children(recursive=True):
                    with suppress(psutil.Error):
                        title = " ".join(process.cmdline())
                        if title.startswith(_WORKER):
                            seconds[process.pid] = sum(process.cpu_times()[:2])
                            if title.startswith(_ANSWERING):
                                starts.setdefault(process.pid, seconds[process.pid])

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield starts, seconds
    finally:
        ended.set()
        watching.join()


@contextmanager
def _node(cores: int, kinds: Sequence[str], place: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A cluster of one node that declares kinds of card; it has ended when the context is left."""
    port = next(_PORTS)
    address = f"127.0.0.1:{port}"
    declared = ", ".join(f'"accelerator_type:{kind}": 1' for kind in kinds)
    quiet = ("--include-dashboard=false", "--object-store-memory=100000000", "--block")
    start = ("ray.scripts.scripts", "start", "--head", "--port", str(port), "--node-ip-address", "127.0.0.1")
    with (place / "node.log").open("w") as log:
        node = subprocess.Popen(  # noqa: S603 our own interpreter
            [sys.executable, "-m", *start, "--num-cpus", str(cores), "--resources", f"{{{declared}}}", *quiet],
            env=_environment(place),
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(address, node, place)
            yield address, psutil.Process(node.pid)
        finally:
            node.terminate()
            node.wait(NODE_STARTED_S)


def _wait_for(address: str, node: "subprocess.Popen[bytes]", place: Path) -> None:
    """Wait until the node answers; raises `NotMeasuredError` if it does not."""
    look = [sys.executable, "-m", "calibrate", "run", "--executor", "ray", "--address", address, "--dry-run"]
    deadline = time.monotonic() + NODE_STARTED_S
    while node.poll() is None and time.monotonic() < deadline:
        time.sleep(2)
        if not subprocess.run(look, env=_environment(place), capture_output=True, check=False).returncode:  # noqa: S603
            return
    if node.poll() is None:
        raise NotMeasuredError(f"the Ray node did not answer in {NODE_STARTED_S:.0f} s")
    raise NotMeasuredError(
        f"the Ray node ended: {_last_line(place / 'node.log')} (pip install -e '.[ray]' installs Ray)"
    )


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


def _environment(place: Path) -> dict[str, str]:
    return {**os.environ, **ON_LOOPBACK, "RAY_TMPDIR": str(place)}
