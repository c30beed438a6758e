"""A Python script in a process of its own, and the processor time that it takes."""

import resource
import subprocess
import sys
from collections.abc import Sequence

from tests.command_lines import ROOT


def counted(
    script: str, arguments: Sequence[str], environ: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], float]:
    """How the script ended in the checkout with one thread, and its seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", **environ},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
