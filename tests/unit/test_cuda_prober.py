"""However a probe's child ends, the parent answers with a verdict, in time, and leaves no process behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from calibrate.probes.cuda import CudaProber, run_child
from calibrate.probes.worker import Order
from calibrate.verdict import Verdict
from calibrate.workload import Workload

ORDER = Order(knobs=Knobs(), workload=Workload(batch=1, duration_s=10), cap_bytes=1 << 30, model="tiny")
ANSWER = '{"verdict": "fits", "stages": [], "decode_path": "gpu", "problem": ""}'


def _child(code: str) -> list[str]:
    """A worker that does `code` instead; `fd` is the answer's descriptor."""
    return [sys.executable, "-c", f"import os, sys, time, signal; fd = int(sys.argv[1]); {code}"]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (f"sys.stdin.read(); os.write(fd, b'''{ANSWER}''')", Verdict.FITS),
        (f"print('x' * 10_000_000); os.write(fd, b'''{ANSWER}''')", Verdict.FITS),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Verdict.CRASHED),
        ("os.kill(os.getpid(), signal.SIGKILL)", Verdict.CRASHED),
        ("os._exit(0)", Verdict.CRASHED),
        (f"os.write(fd, b'''{ANSWER[:30]}''')", Verdict.CRASHED),
        ("os.write(fd, b'NaN')", Verdict.CRASHED),
        ("raise RuntimeError('driver gone')", Verdict.CRASHED),
        ("time.sleep(60)", Verdict.TIMEOUT),
    ],
)
def test_every_end_is_a_verdict(code: str, verdict: Verdict) -> None:
    started = time.monotonic()
    assert run_child(_child(code), ORDER, timeout_s=3).verdict is verdict
    assert time.monotonic() - started < 20


def test_a_crash_says_what_the_child_said_last() -> None:
    code = "print('loading', file=sys.stderr); raise RuntimeError('CUBLAS_STATUS_NOT_INITIALIZED')"
    assert "CUBLAS_STATUS_NOT_INITIALIZED" in run_child(_child(code), ORDER, timeout_s=5).problem


def test_a_hanging_grandchild_is_killed_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    grandchild = f"pid = os.fork(); pid or time.sleep(60); open({str(note)!r}, 'w').write(str(pid)); time.sleep(60)"
    assert run_child(_child(grandchild), ORDER, timeout_s=2).verdict is Verdict.TIMEOUT
    pid = int(note.read_text())
    for _ in range(50):
        if not _alive(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"grandchild {pid} is still running")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_without_a_card_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NotMeasuredError, match="no NVIDIA card"):
        CudaProber()
