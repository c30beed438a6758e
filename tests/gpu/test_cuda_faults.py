"""On a real card: a child that ends badly while holding memory has its verdict, and the card becomes as before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from acestep.knobs import Knobs
from acestep.units import GIB
from calibrate.probes.base import CapMethod
from calibrate.probes.caps import SLACK_BYTES
from calibrate.probes.child import Patience
from calibrate.probes.cuda import CudaProber
from calibrate.verdict import Verdict
from calibrate.workload import Workload

pytestmark = pytest.mark.gpu

WORKER = Path(__file__).with_name("live_worker.py")
ROOT = Path(__file__).parents[2]
KNOBS, SONG, CAP = Knobs(), Workload(batch=1, duration_s=60), 4 * GIB
IMPATIENT = Patience(wall_s=60, silence_s=3)


class LiveProber(CudaProber):
    """Asks children on the real card, which do what `fault` says."""

    def __init__(self, method: CapMethod = CapMethod.FRACTION) -> None:
        super().__init__(method)
        self.fault = "fits"
        environ = {**self.bench.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        worker = (sys.executable, str(WORKER))
        self.bench = msgspec.structs.replace(self.bench, worker=worker, environ=environ, probing=IMPATIENT)

    def model_for(self, knobs: Knobs) -> str:
        return self.fault


@pytest.fixture
def probers() -> Iterator[list[LiveProber]]:
    # The tests' own context comes first: otherwise it would be a tenant that came during a probe.
    torch.cuda.synchronize()
    made: list[LiveProber] = []
    yield made
    for prober in made:
        prober.close()


FRACTION, BALLAST = CapMethod.FRACTION, CapMethod.BALLAST


@pytest.mark.parametrize(
    ("method", "fault", "verdict", "words"),
    [
        (FRACTION, "sigsegv", Verdict.CRASHED, "killed by SIGSEGV"),
        (FRACTION, "sigkill", Verdict.CRASHED, "killed by SIGKILL"),
        (FRACTION, "exits", Verdict.CRASHED, "no answer"),
        (FRACTION, "leaves-a-daemon", Verdict.CRASHED, "ended with code 3"),
        (FRACTION, "hangs", Verdict.TIMEOUT, "no sign of life"),
        (FRACTION, "hangs-deaf", Verdict.TIMEOUT, "no sign of life"),
        (FRACTION, "hangs-in-a-grandchild", Verdict.TIMEOUT, "no sign of life"),
        pytest.param(FRACTION, "breaks-the-card-s-trust", Verdict.CRASHED, "CUDA error", marks=pytest.mark.values),
        (FRACTION, "runs-out", Verdict.OOM, "out of memory"),
        (BALLAST, "sigkill", Verdict.CRASHED, "killed by SIGKILL"),
        (BALLAST, "hangs", Verdict.TIMEOUT, "no sign of life"),
        (BALLAST, "runs-out", Verdict.OOM, "out of memory"),
    ],
)
def test_a_child_that_ends_badly_frees_the_card(
    probers: list[LiveProber], method: CapMethod, fault: str, verdict: Verdict, words: str
) -> None:
    free = torch.cuda.mem_get_info()[0]
    probers.append(prober := LiveProber(method))
    prober.fault = fault
    result = prober.probe(KNOBS, SONG, CAP)
    assert result.verdict is verdict, result.warnings
    assert words in " ".join(result.warnings)
    prober.fault = "fits"
    assert prober.probe(KNOBS, SONG, CAP).verdict is Verdict.FITS, "the next one finds the card as it was"
    prober.close()
    deadline = time.monotonic() + 10
    while torch.cuda.mem_get_info()[0] < free - SLACK_BYTES and time.monotonic() < deadline:
        time.sleep(0.1)
    assert torch.cuda.mem_get_info()[0] >= free - SLACK_BYTES


def test_a_prober_that_is_killed_leaves_nothing_on_the_card() -> None:
    """The child hangs while holding memory, and ends when its parent closes the socket."""
    torch.cuda.synchronize()
    free = torch.cuda.mem_get_info()[0]
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_PROBING], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while torch.cuda.mem_get_info()[0] < free - SLACK_BYTES and time.monotonic() < deadline:
        time.sleep(0.2)
    assert torch.cuda.mem_get_info()[0] >= free - SLACK_BYTES


KILLED_WHILE_PROBING = """
import os, signal, threading
from tests.gpu.test_cuda_faults import CAP, KNOBS, SONG, LiveProber
prober = LiveProber()
prober.fault = "chatters-forever"
threading.Timer(20, os.kill, (os.getpid(), signal.SIGKILL)).start()
prober.probe(KNOBS, SONG, CAP)
"""
"""By then the child has opened the card and holds its gibibyte; it never falls silent."""
