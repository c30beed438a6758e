"""A trace is a function of the code and the question: not of the process, its hash seed or its history."""

import hashlib
import os
import subprocess
import sys

from acestep.knobs import Knobs, Offload
from acestep.units import GIB
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.workload import Workload
from tests.command_lines import ROOT

SEED = "1"
"""Of a process that is started; this one's, unless it is told, is drawn from four thousand million others."""


def answers(*, warm: bool) -> str:
    """Two questions to a prober of its own, one that was asked something else before where it is `warm`."""
    said = []
    prober = SimulatedProber()
    if warm:
        prober.probe(Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=20), 1 << 40)
    for offload in (Offload.NONE, Offload.STREAM):
        knobs, workload = Knobs(offload=offload), Workload(batch=2, duration_s=30)
        found = prober.probe(knobs, workload, 7 * GIB)
        said.append(hashlib.sha256(repr((found.verdict, found.stages)).encode()).hexdigest())
        said.append(str(sorted(prober.smallest_caps(knobs, workload).items())))
    return "\n".join(said)


def _answers_of_a_fresh_process(hash_seed: str) -> str:
    program = "from tests.integration.test_determinism import answers; print(answers(warm=False))"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    ).stdout.strip()


def test_the_same_question_has_the_same_answer_in_every_process() -> None:
    """This one has a history, of whatever tests came before, and is warm; another has neither."""
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == SEED else SEED
    first = _answers_of_a_fresh_process(other_seed)
    assert first
    assert answers(warm=True) == first
