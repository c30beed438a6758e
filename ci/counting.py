"""Which cell of how many is probed, and how long that has taken."""

import threading
import time
from collections.abc import Callable

TellCells = Callable[[str], None]
"""Called with a sentence about every cell."""


def counting(progress: TellCells, total: int, clock: Callable[[], float] = time.monotonic) -> TellCells:
    """Return a function that passes sentences on from any thread with their number and the seconds since the start."""
    lock = threading.Lock()
    began, told = clock(), 0

    def tell(sentence: str) -> None:
        nonlocal told
        with lock:
            told += 1
            progress(f"{told} of {total}, {clock() - began:.0f} s: {sentence}")

    return tell
