"""The GPU of an Apple Silicon machine."""

import platform
from collections.abc import Callable
from typing import Final

from acestep.hardware.card import LARGEST_CARD_BYTES, Card, CardKind
from acestep.hardware.detection.answers import Answer, Problem, Source, one_line
from acestep.hardware.detection.patience import DRIVER_LONGEST_S

MPS_SHARE: Final = 0.75
"""Share of an Apple machine's memory that Metal recommends as the GPU's working set."""


def _sysctl(name: str) -> str:
    """Return a value of the system; raise `OSError` if the system has none, or does not answer."""
    import subprocess

    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DRIVER_LONGEST_S)  # noqa: S603 fixed program, fixed names
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"sysctl gave no answer within {DRIVER_LONGEST_S:g} s") from None
    if done.returncode:
        raise OSError(done.stderr.strip() or f"sysctl ended with {done.returncode}")
    return done.stdout.strip()


def ask_apple(
    system: str = platform.system(), machine: str = platform.machine(), sysctl: Callable[[str], str] = _sysctl
) -> Answer:
    """The GPU, with the share of the machine's memory that Metal recommends to use."""
    if (system, machine) != ("Darwin", "arm64"):
        return Answer(source=Source.APPLE, asked="no Apple Silicon here")
    asked = "sysctl"
    try:
        total, name = int(sysctl("hw.memsize")), one_line(sysctl("machdep.cpu.brand_string")) or "Apple GPU"
        if not 0 < total <= LARGEST_CARD_BYTES:
            raise ValueError(f"it says {total} bytes")
    except (OSError, ValueError) as error:
        problem = Problem(sentence=f"macOS does not say how much memory this machine has ({error}).")
        return Answer(source=Source.APPLE, asked=asked, problems=(problem,))
    card = Card(kind=CardKind.MPS, name=name, total_bytes=int(total * MPS_SHARE), unified=True)
    return Answer(source=Source.APPLE, asked=asked, cards=(card,))
