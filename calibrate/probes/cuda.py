"""The prober on a real card: a fresh child per probe, under a hard cap, and never trusted to end by itself."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.hardware import CardKind, detect
from acestep.knobs import Knobs, Variant
from acestep.models import catalog
from acestep.models.locate import locate
from acestep.request import DecodePath
from calibrate.probes.base import ProbedStage, ProbeResult
from calibrate.probes.worker import Answer, Order
from calibrate.verdict import Verdict
from calibrate.workload import Workload

TIMEOUT_S = 900.0
"""A two-step probe of ten minutes of audio takes a few minutes on the slowest cards people have."""


class CudaProber:
    """Probes this machine's NVIDIA card with the weights on disk, or with dummy ones of the same sizes."""

    device = "cuda"

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        card = detect(os.environ)
        if card.kind is not CardKind.CUDA:
            raise NotMeasuredError(
                f"no NVIDIA card was found ({card.name}), so nothing can be measured; use `--device simulated`"
            )
        self.card = card
        self._timeout_s = timeout_s

    def model_for(self, knobs: Knobs) -> str:
        """The weights a probe runs on: the variant's own where they are on disk, else `dummy`; both take the same."""
        try:
            locate(knobs.variant.value, catalog.checkpoints_dir())
        except InvalidInputError:
            return "dummy"
        return knobs.variant.value

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Run once under a cap, in a child of its own; a child that dies or hangs is a verdict, not an error."""
        order = Order(knobs=knobs, workload=workload, cap_bytes=cap_bytes, model=self.model_for(knobs))
        started = time.perf_counter()
        answer = run_child([sys.executable, "-m", "calibrate.probes.worker"], order, self._timeout_s)
        return ProbeResult(
            verdict=answer.verdict,
            cap_bytes=cap_bytes,
            stages=tuple(
                ProbedStage(
                    name=stage.name,
                    seconds=stage.seconds,
                    songs_per_pass=workload.batch if stage.name == "denoise" else 1,
                    peak_allocated_bytes=stage.allocated_bytes,
                    peak_reserved_bytes=stage.reserved_bytes,
                    resident_bytes=0,
                    allowance_bytes=0,
                    live_at_peak={},
                )
                for stage in answer.stages
            ),
            songs_per_pass=workload.batch,
            decode_path=answer.decode_path,
            seconds=time.perf_counter() - started,
            warnings=(answer.problem,) if answer.problem else (),
        )

    def memory_model(self, variant: Variant) -> dict[str, float]:  # noqa: ARG002 the protocol's argument
        """None: a sweep takes minutes in simulation and hours here."""
        return {}

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Not found on a card yet: the boundary search that would do it in few probes comes with the campaign."""
        raise NotMeasuredError(
            f"smallest caps of {workload.batch} x {workload.duration_s} s on {knobs.variant} are found by simulation;"
            " use `--device simulated`"
        )


def run_child(command: list[str], order: Order, timeout_s: float) -> Answer:
    """Start a worker in a process group of its own and return its answer, or the verdict its end amounts to."""
    with TemporaryFile() as said:
        return _answer(command, order, timeout_s, said)


def _answer(command: list[str], order: Order, timeout_s: float, said: IO[bytes]) -> Answer:
    read_fd, write_fd = os.pipe()
    child = subprocess.Popen(  # noqa: S603 our own interpreter and module
        [*command, str(write_fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        pass_fds=(write_fd,),
        env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as reply:
        try:
            child.communicate(msgspec.json.encode(order), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return _ended(Verdict.TIMEOUT, f"no answer within {timeout_s:.0f} s")
        finally:
            _kill_family(child)
        text = reply.read()
    try:
        return msgspec.json.decode(text, type=Answer)
    except msgspec.DecodeError:
        last_words = f"; it said: {words}" if (words := _last_line(said)) else ""
        return _ended(Verdict.CRASHED, f"the probe ended with code {child.returncode} and no answer{last_words}")


def _last_line(said: IO[bytes]) -> str:
    """The last line of what a child wrote, at most 200 characters of it."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
    lines = said.read().decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def _kill_family(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ended(verdict: Verdict, problem: str) -> Answer:
    return Answer(verdict=verdict, stages=(), decode_path=DecodePath.GPU, problem=problem)
