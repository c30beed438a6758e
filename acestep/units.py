"""Bytes inside, units only where a person reads."""

from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def gib(n_bytes: int) -> str:
    """`n_bytes` as a person reads it, e.g. ``"3.22 GiB"``; never parsed back."""
    return f"{n_bytes / GIB:.2f} GiB"


def mib(n_bytes: int) -> str:
    """`n_bytes` in mebibytes, e.g. ``"188 MiB"``; never parsed back."""
    return f"{n_bytes / MIB:.0f} MiB"


def gib_to_bytes(size: float) -> int:
    """The bytes of a size a person typed in GiB, rounded down to a whole byte."""
    return int(size * GIB)


def minutes(
    seconds: float, minute: Callable[[str], str] = "{} min".format, second: Callable[[str], str] = "{} s".format
) -> str:
    """A song's length as a musician says it, e.g. ``"4 min 30 s"``; never parsed back.

    `minute` and `second` put a number into words; other languages than English bring their own.
    """
    whole, rest = divmod(round(seconds, 1), 60)
    parts = [minute(f"{whole:g}") if whole else "", second(f"{rest:g}") if rest or not whole else ""]
    return " ".join(part for part in parts if part)


def ceil_div(dividend: int, divisor: int) -> int:
    """A quotient, rounded up."""
    return -(-dividend // divisor)


Progress = Callable[[str, int, int], None]
"""Called with a stage's name and how many of how many parts of it are done, first with 0; may raise to stop the run."""


Check = Callable[[], None]
"""Called between short pieces of one part, such as the tiles of a song; may raise to stop the run."""


def silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


def unchecked() -> None:
    """Nothing can stop the run here."""
