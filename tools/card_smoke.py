"""Checks that probes work on this machine: one under a cap that is large enough, and one under a cap that is not.

python -m tools.card_smoke -o FILE [--device cuda]

One minute shows problems that would otherwise appear after hours. FILE has both answers; the exit code is 0 if the
first fits and the second runs out of memory, else 4.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from acestep.errors import AceStepError, Exit
from acestep.knobs import Knobs, Offload
from acestep.output_file import output_file
from acestep.units import GIB, MIB
from calibrate.campaign.probers import alone_on
from calibrate.files import pretty_json
from calibrate.probes.base import Prober, ProbeResult
from calibrate.verdict import Verdict
from calibrate.workload import Workload

SMOKE_KNOBS: Final = Knobs(offload=Offload.CPU_DIT)
SMOKE_SONG: Final = Workload(batch=1, duration_s=30.0)

EXPECTED: Final = {4 * GIB: Verdict.FITS, GIB: Verdict.OOM}
"""The expected results of the song under these caps, on every card: its transformer alone has 3 GiB of weights."""


class SmokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One probe with its expected result."""

    cap_bytes: int
    expected: Verdict
    seconds: float
    result: ProbeResult


def answers(prober: Prober) -> list[SmokeResult]:
    """Run both probes; the second finds the weights loaded by the first."""
    found = []
    for cap_bytes, expected in EXPECTED.items():
        started = time.monotonic()
        result = prober.probe(SMOKE_KNOBS, SMOKE_SONG, cap_bytes)
        seconds = round(time.monotonic() - started, 3)
        found.append(SmokeResult(cap_bytes=cap_bytes, expected=expected, seconds=seconds, result=result))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the probes, write the file, and print what is wrong."""
    options = _options(arguments)
    try:
        executor = alone_on(options.device)
        try:
            found = answers(executor.prober)
        finally:
            executor.close()
        with output_file(options.output) as write:
            write(pretty_json(found))
    except AceStepError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    wrong = [answer for answer in found if answer.result.verdict is not answer.expected]
    for answer in found:
        told = f"under {answer.cap_bytes // MIB} MiB: {answer.result.verdict} after {answer.seconds:.1f} s"
        why = f", expected {answer.expected}: {'; '.join(answer.result.warnings)}" if answer in wrong else ""
        sys.stderr.write(f"{told}{why}\n")
    return Exit.NOT_MEASURED if wrong else Exit.OK


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "simulated"), default="cuda")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
