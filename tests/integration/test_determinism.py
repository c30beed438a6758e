"""A trace is a function of the code and the question: not of the process, its hash seed or its history."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib
from acestep.knobs import Knobs, Offload
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.workload import Workload

prober = SimulatedProber()
if {warm}:
    prober.probe(Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=20), 1 << 40)
for offload in (Offload.NONE, Offload.STREAM):
    found = prober.probe(Knobs(offload=offload), Workload(batch=2, duration_s=30), 7 << 30)
    print(hashlib.sha256(repr((found.verdict, found.stages)).encode()).hexdigest())
    print(sorted(prober.smallest_caps(Knobs(offload=offload), Workload(batch=2, duration_s=30)).items()))
"""


def _answers(hash_seed: str, *, warm: bool) -> str:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(warm=warm)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    ).stdout


@pytest.mark.timeout(400)
def test_the_same_question_has_the_same_answer_in_every_process() -> None:
    first = _answers("1", warm=False)
    assert first
    assert _answers("2", warm=True) == first
