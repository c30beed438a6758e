"""Bytes inside, units only where a person reads."""

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
