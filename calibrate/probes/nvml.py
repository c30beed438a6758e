"""The card's memory use and the processes on it, from the driver, read next to a probe."""

from importlib import import_module
from typing import Any, Protocol

import msgspec

from acestep.errors import NotMeasuredError


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A card at one moment. `processes` holds bytes by process id, 0 if the driver does not give the bytes.

    The driver's own reserve may be counted neither as used nor as free.
    """

    total_bytes: int
    used_bytes: int
    free_bytes: int
    processes: dict[int, int]


class Gauge(Protocol):
    """Reads the state of one card."""

    @property
    def watches(self) -> bool:
        """Whether readings are real."""
        ...

    def read(self) -> Usage:
        """Return the state of the card now; raise `NotMeasuredError` if it can no longer be read."""
        ...


class Unwatched:
    """The gauge for a driver whose figures cannot be read."""

    watches = False

    def read(self) -> Usage:
        """Return an empty card of size 0."""
        return Usage(total_bytes=0, used_bytes=0, free_bytes=0, processes={})


class NvmlGauge:
    """The card of a uuid, a board's or a MIG slice's, through NVML."""

    watches = True

    def __init__(self, uuid: str, nvml: Any) -> None:
        """Raises the library's `NVMLError` when there is no driver or no such card."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def read(self) -> Usage:
        """Read the memory first: a process that grows in between is then counted with too many bytes, not too few."""
        try:
            memory = self._memory()
            processes = self._processes()
        except self._nvml.NVMLError as error:
            raise NotMeasuredError(f"the driver can no longer be asked about the card ({error})") from None
        return Usage(
            total_bytes=int(memory.total),
            used_bytes=int(memory.used),
            free_bytes=int(memory.free),
            processes=processes,
        )

    def _memory(self) -> Any:
        """Use version 2 if the driver has it: version 1 counts the driver's own reserve as used."""
        try:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle)

    def _processes(self) -> dict[int, int]:
        """By id, so that a process in both lists counts once; empty if a driver or a MIG slice keeps no list."""
        found: dict[int, int] = {}
        for ask in (self._nvml.nvmlDeviceGetComputeRunningProcesses, self._nvml.nvmlDeviceGetGraphicsRunningProcesses):
            try:
                listed = ask(self._handle)
            except self._nvml.NVMLError:
                continue
            for process in listed:
                found[process.pid] = max(found.get(process.pid, 0), process.usedGpuMemory or 0)
        return found


def gauge_for(uuid: str) -> Gauge:
    """Return a gauge for the card, or one whose `watches` is False."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return Unwatched()
    try:
        return NvmlGauge(uuid, nvml)
    except nvml.NVMLError:
        return Unwatched()
