"""A card that exists only in the driver's figures, and a prober whose children run on it."""

import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from acestep.units import GIB
from calibrate.probes.base import CapMethod
from calibrate.probes.child import Patience
from calibrate.probes.cuda import ChildProber
from calibrate.probes.nvml import Usage
from calibrate.probes.session import ProbeSetup
from tests.processes import has_ended

SCRIPT = Path(__file__).with_name("faulty_worker.py")
TRACE = "FAULTY_FAMILY"
NAMESPACE = 1_000_000
READS_BEFORE_A_RUN = 8
"""When a prober reads the card for this time, its first child has been given its first order."""

CALM = Patience(wall_s=20, silence_s=20)


def living(token: str) -> dict[int, str]:
    """The command lines of all living processes that descend from a bench, by id."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(TRACE) == token and not has_ended(process.pid):
                found[process.pid] = " ".join(process.cmdline())
    return found


class FakeCard:
    """24 GiB, on which every living child of the bench has a context, and any other process that a test adds.

    `shifted` lists the children by ids of another namespace, as a container does; `discreet` lists no process's memory;
    `mid_run` is called during the first probe.
    """

    watches = True

    def __init__(self, token: str, *, context_bytes: int = GIB // 2) -> None:
        self.token = token
        self.context_bytes = context_bytes
        self.others = {1: GIB}
        self.hidden_bytes = 0
        self.shifted = self.discreet = False
        self.mid_run: Callable[[FakeCard], None] = lambda card: None
        self.lost = False
        self.lingering_s = 0.0
        self._reads = 0
        self._last_use = -1e9

    def read(self) -> Usage:
        self._reads += 1
        if self._reads == READS_BEFORE_A_RUN:
            self.mid_run(self)
        if self.lost:
            raise NotMeasuredError("the driver can no longer be asked about the card (GPU is lost)")
        ours = [pid for pid, words in living(self.token).items() if SCRIPT.name in words]
        if ours:
            self._last_use = time.monotonic()
        lingers = not ours and time.monotonic() < self._last_use + self.lingering_s
        listed = {pid + NAMESPACE * self.shifted: self.context_bytes for pid in ours} | self.others
        used = sum(listed.values()) + self.hidden_bytes + lingers * GIB
        return Usage(
            total_bytes=24 * GIB,
            used_bytes=used,
            free_bytes=24 * GIB - used,
            processes=dict.fromkeys(listed, 0) if self.discreet else listed,
        )


class FaultyProber(ChildProber):
    """Asks real children, whose engine does what `fault` says."""

    def __init__(
        self, fault: str = "fits", *, patience: Patience = CALM, method: CapMethod = CapMethod.FRACTION
    ) -> None:
        self.fault = fault
        self.token = uuid.uuid4().hex
        self.gauge = FakeCard(self.token)
        super().__init__(
            ProbeSetup(
                gauge=self.gauge,
                worker=(sys.executable, str(SCRIPT), "worker"),
                ballast=(sys.executable, str(SCRIPT), "ballast"),
                environ={"PYTHONPATH": str(SCRIPT.parents[1]), TRACE: self.token},
                loading=CALM,
                probing=patience,
                return_s=0.4,
                method=method,
            )
        )

    def model_for(self, knobs: Knobs) -> str:
        return self.fault
