"""How full the card is and who is on it, whoever that may be: the driver's own books, read beside a probe."""

from importlib import import_module
from typing import Any, Protocol

import msgspec

from acestep.errors import NotMeasuredError


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A card at one moment. `processes` holds bytes by process id, 0 where the driver does not say how many.

    What the driver keeps to itself may be neither used nor free.
    """

    total_bytes: int
    used_bytes: int
    free_bytes: int
    processes: dict[int, int]


class Gauge(Protocol):
    """Something that can look at one card."""

    @property
    def watches(self) -> bool:
        """Whether readings mean anything."""
        ...

    def read(self) -> Usage:
        """The card now; `NotMeasuredError` when it can no longer be asked."""
        ...


class Unwatched:
    """Stands in where the driver's books cannot be read, and says so."""

    watches = False

    def read(self) -> Usage:
        """An empty card of no size."""
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
        """The memory first: a process that grows in between is then counted with too much, not too little."""
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
        """Version 2 where the driver has it: version 1 counts the driver's own reserve as used."""
        try:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle)

    def _processes(self) -> dict[int, int]:
        """By id, so that one in both lists counts once; empty where a driver or a slice keeps no list."""
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
    """A gauge for the card, or one that says it cannot watch."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return Unwatched()
    try:
        return NvmlGauge(uuid, nvml)
    except nvml.NVMLError:
        return Unwatched()
