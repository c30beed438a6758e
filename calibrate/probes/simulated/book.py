"""Records a run without a cap: it writes the trace and refuses nothing."""

from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.trace import Trace


class TraceBook:
    """Writes the stages and cache flushes of a run into a trace, and always reports the same free bytes."""

    def __init__(self, trace: Trace, free_bytes: int = NO_CAP) -> None:
        self._trace = trace
        self._free_bytes = free_bytes

    def begin_stage(self, name: str) -> None:
        """Record the beginning of a stage."""
        self._trace.begin_stage(name)

    def end_stage(self) -> tuple[int, int]:
        """Record the end of a stage; peaks are computed from the trace afterwards."""
        self._trace.end_stage()
        return 0, 0

    def empty_cache(self) -> None:
        """Record a flush of the cache."""
        self._trace.empty_cache()

    def free_bytes(self) -> int:
        """Return the fixed free bytes and record the question, because under another cap the answer may differ."""
        self._trace.ask()
        return self._free_bytes
