"""The book of a run without a cap: everything is written down, and nothing is refused."""

from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.trace import Trace


class TraceBook:
    """Writes the stages and flushes of a run into a trace, and answers every question for free bytes alike."""

    def __init__(self, trace: Trace, free_bytes: int = NO_CAP) -> None:
        self._trace = trace
        self._free_bytes = free_bytes

    def begin_stage(self, name: str) -> None:
        """Written down."""
        self._trace.begin_stage(name)

    def end_stage(self) -> tuple[int, int]:
        """Written down; peaks are read from the trace afterwards."""
        self._trace.end_stage()
        return 0, 0

    def empty_cache(self) -> None:
        """Written down."""
        self._trace.empty_cache()

    def free_bytes(self) -> int:
        """The answer given; the question is written down, for under another cap it might have another answer."""
        self._trace.ask()
        return self._free_bytes
