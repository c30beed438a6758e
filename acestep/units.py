"""Byte counts are ints; units appear only in text for a person."""

import math
from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def gib(n_bytes: int) -> str:
    """Return `n_bytes` as text, e.g. ``"3.22 GiB"``; never parsed back."""
    return f"{n_bytes / GIB:.2f} GiB"


def mib(n_bytes: int) -> str:
    """Return `n_bytes` in mebibytes as text, e.g. ``"188 MiB"``; never parsed back."""
    return f"{n_bytes / MIB:.0f} MiB"


def gib_to_bytes(size: float) -> int:
    """Return the bytes of a size given in GiB, rounded down to a whole byte."""
    return int(size * GIB)


def minutes(
    seconds: float, minute: Callable[[str], str] = "{} min".format, second: Callable[[str], str] = "{} s".format
) -> str:
    """A song's length as a musician says it, e.g. ``"4 min 30 s"``; never parsed back.

    `minute` and `second` put a number into words; other languages than English bring their own.
    """
    whole, rest = divmod(round(seconds, 1), 60)
    rest = round(rest, 1)
    parts = [minute(f"{whole:.0f}") if whole else "", second(f"{rest:g}") if rest or not whole else ""]
    return " ".join(part for part in parts if part)


def ceil_div(dividend: int, divisor: int) -> int:
    """A quotient, rounded up."""
    return -(-dividend // divisor)


Progress = Callable[[str, int, int], None]
"""Called with a stage's name, its finished parts and its total parts, first with 0 finished; may raise to stop the run.
"""


Check = Callable[[], None]
"""Called between short pieces of one part, such as the tiles of a song; may raise to stop the run."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def unchecked() -> None:
    """Do nothing: the run cannot be stopped here."""


def duration_range(
    least_s: float,
    most_s: float,
    told: Callable[[float], str] = minutes,
    between: Callable[[str, str], str] = "{} to {}".format,
) -> str:
    """A range of times as a person says it, rounded outwards, e.g. ``"9 s to 20 s"``; never parsed back.

    `told` puts a time into words and `between` joins both.
    """
    return between(told(_outwards(least_s, math.floor)), told(_outwards(most_s, math.ceil)))


def _outwards(seconds: float, rounding: Callable[[float], int]) -> float:
    """Round to a tenth of a second below 3 s, to whole seconds below 20 s, to 5 s below 2 min, and to half minutes."""
    step = next((step for below, step in ((3, 0.1), (20, 1), (120, 5)) if seconds < below), 30)
    return round(rounding(round(seconds / step, 6)) * step, 1)
