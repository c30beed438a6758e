"""A trace is a function of the code and the question: not of the process, its hash seed or its history."""

import hashlib
import sys
from pathlib import Path

from acestep.knobs import Knobs, Offload
from acestep.units import GIB
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.workload import Workload
from tests.command_lines import ROOT
from tests.forked import run_module


def answers(*, warm: bool) -> str:
    """What a new prober finds; where it is `warm`, it was asked something else before."""
    prober = SimulatedProber()
    if warm:
        prober.probe(Knobs(offload=Offload.CPU_DIT), Workload(batch=1, duration_s=20), 1 << 40)
    knobs, workload = Knobs(offload=Offload.STREAM), Workload(batch=2, duration_s=30)
    found = prober.probe(knobs, workload, 7 * GIB)
    stages = hashlib.sha256(repr((found.verdict, found.stages)).encode()).hexdigest()
    return f"{stages} {sorted(prober.smallest_caps(knobs, workload).items())}"


def test_the_same_question_has_the_same_answer_in_every_process(tmp_path: Path) -> None:
    """This one has a history, of whatever tests came before, and is warm; another has neither."""
    code, first, errors = run_module(ROOT, __name__, (), tmp_path)
    assert code == 0, errors
    assert first.strip()
    assert answers(warm=True) == first.strip()


if __name__ == "__main__":
    sys.stdout.write(answers(warm=False))
