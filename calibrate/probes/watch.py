"""Watches for other processes on the card: if one takes memory, a probe says nothing about the fit."""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from acestep.errors import NotMeasuredError
from acestep.units import MIB, gib, mib
from calibrate.probes.caps import SLACK_BYTES
from calibrate.probes.child import TICK_S, ProbeEndedError
from calibrate.probes.family import members
from calibrate.probes.nvml import Gauge, Usage
from calibrate.verdict import Verdict

HIDDEN_READS = 3
"""Consecutive readings that must show memory of no listed process, because both figures are not read at the same time.
"""

CONTEXT_GROWTH_BYTES = 512 * MIB
"""Allowed growth of a context as kernels load, if the driver lists no process's memory."""


def foreign_process(before: Usage, now: Usage, ours: AbstractSet[int]) -> str | None:
    """Return a sentence about a process outside `ours` that has taken memory since `before`; None if there is none."""
    for process in sorted(now.processes.keys() - ours):
        held = now.processes[process]
        if process not in before.processes and not 0 < held <= SLACK_BYTES:
            return f"process {process} came on the card" + (f" and took {mib(held)}" if held else "")
        grown = held - before.processes.get(process, 0)
        if grown > SLACK_BYTES:
            return f"process {process} took {mib(grown)} more of the card"
    return None


def hidden_bytes(before: Usage, now: Usage, ours: AbstractSet[int]) -> int:
    """Return the bytes taken since `before` that no listed process holds.

    0 if the list lacks the memory of one of `ours`.
    """
    if not ours or not all(now.processes.get(process) for process in ours):
        return 0
    listed = sum(now.processes.values()) - sum(before.processes.values())
    return max(0, now.used_bytes - before.used_bytes - listed)


class CardWatch:
    """Each call reads the card, and raises `ProbeEndedError` if other processes use it.

    `before` is the card without our processes. `marks` are those of our process families; by now one process of each is
    on the card. In a container the driver's process ids are not ours; then as many new processes as there are families
    count as ours.
    """

    def __init__(self, gauge: Gauge, before: Usage, marks: Sequence[str]) -> None:
        self._gauge = gauge
        self._before = before
        self._marks = marks
        self._missed = 0
        self._resting_bytes = 0
        newcomers = self._read().processes.keys() - before.processes.keys()
        family = newcomers & self._family()
        self._ours = family or (newcomers if len(newcomers) == len(marks) else set())

    def settle(self) -> None:
        """Take the current state as the level to which the card returns after a run."""
        self._resting_bytes = self._read().used_bytes

    def __call__(self) -> None:
        """Check the card once."""
        if not self._gauge.watches:
            return
        now = self._known()
        if foreign_process(self._before, now, self._ours):
            # One of our processes that ends between the card's list and our list looks foreign once.
            now = self._known()
        if problem := foreign_process(self._before, now, self._ours):
            raise ProbeEndedError(Verdict.TAINTED, f"{problem} during the probe")
        missing = hidden_bytes(self._before, now, self._ours)
        self._missed = self._missed + 1 if missing > SLACK_BYTES else 0
        if self._missed >= HIDDEN_READS:
            raise ProbeEndedError(
                Verdict.TAINTED, f"{mib(missing)} of the card were taken by a process that the driver does not list"
            )

    def rest(self, reserved_bytes: int) -> None:
        """Check the card once after a run, while our child holds `reserved_bytes` more than at `settle`."""
        self()
        now = self._read()
        grown = now.used_bytes - self._resting_bytes - reserved_bytes
        if self._gauge.watches and not self._lists_ours(now) and grown > CONTEXT_GROWTH_BYTES:
            raise ProbeEndedError(Verdict.TAINTED, f"{mib(grown)} of the card were taken during the probe by others")

    def _known(self) -> Usage:
        """Return the state of the card now, with new processes of our families counted as ours."""
        now = self._read()
        if now.processes.keys() - self._before.processes.keys() - self._ours:
            self._ours |= self._family() & now.processes.keys()
        return now

    def _family(self) -> set[int]:
        return {process for mark in self._marks for process in members(mark)}

    def _lists_ours(self, now: Usage) -> bool:
        return bool(self._ours) and all(now.processes.get(process) for process in self._ours)

    def _read(self) -> Usage:
        try:
            return self._gauge.read()
        except NotMeasuredError as lost:
            raise ProbeEndedError(Verdict.CRASHED, str(lost)) from None


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """How long the card took to become as before, and the bytes that had not come back at the time limit."""

    seconds: float
    left_bytes: int


def wait_until_flat(
    gauge: Gauge,
    before: Usage,
    longest_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Return:
    """Wait until the card is as full as `before`, at most `longest_s` seconds; raises as `Gauge.read` does."""
    started = clock()
    while True:
        left = gauge.read().used_bytes - before.used_bytes
        seconds = clock() - started
        if left <= SLACK_BYTES or seconds >= longest_s:
            return Return(seconds=seconds, left_bytes=left if left > SLACK_BYTES else 0)
        sleep(TICK_S)


def require_flat(returned: Return) -> None:
    """Raise `ProbeEndedError` if the card is not as before."""
    if returned.left_bytes:
        raise ProbeEndedError(
            Verdict.TAINTED,
            f"{gib(returned.left_bytes)} of the card are in use that were free before the first probe, and did not"
            f" come back within {returned.seconds:.0f} s",
        )
