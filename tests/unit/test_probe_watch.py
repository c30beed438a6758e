"""A probe counts only on a card without other new processes; earlier processes may stay."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import NotMeasuredError
from acestep.units import GIB, MIB
from calibrate.probes.caps import SLACK_BYTES
from calibrate.probes.child import ProbeEndedError
from calibrate.probes.nvml import NvmlGauge, Unwatched, Usage, gauge_for
from calibrate.probes.watch import (
    HIDDEN_READS,
    CardWatch,
    Return,
    foreign_process,
    hidden_bytes,
    require_flat,
    wait_until_flat,
)
from calibrate.verdict import Verdict

processes = st.dictionaries(st.integers(1, 9), st.integers(0, 8 * GIB), max_size=5)
OURS = {100: 2 * GIB}


def usage(listed: dict[int, int], hidden: int = 0) -> Usage:
    used = sum(listed.values()) + hidden
    return Usage(total_bytes=80 * GIB, used_bytes=used, free_bytes=80 * GIB - used, processes=listed)


class Readings:
    """A gauge that reads what a test has written, once each, and fails when asked more often."""

    watches = True

    def __init__(self, *readings: Usage) -> None:
        self._readings = list(readings)

    def read(self) -> Usage:
        assert self._readings, "nothing is left to read"
        return self._readings.pop(0)


@given(processes)
def test_an_earlier_process_is_not_foreign(others: dict[int, int]) -> None:
    assert foreign_process(usage(others), usage(others | OURS), OURS.keys()) is None
    assert hidden_bytes(usage(others), usage(others | OURS), OURS.keys()) == 0


@given(processes, st.data())
def test_a_process_that_ends_or_shrinks_does_not_taint(others: dict[int, int], data: st.DataObject) -> None:
    staying = {
        pid: data.draw(st.integers(min(1, held), held)) for pid, held in others.items() if data.draw(st.booleans())
    }
    assert foreign_process(usage(others), usage(staying | OURS), OURS.keys()) is None
    assert hidden_bytes(usage(others), usage(staying | OURS), OURS.keys()) == 0


@given(processes, st.integers(SLACK_BYTES + 1, 9 * GIB))
def test_a_new_process_is_foreign(others: dict[int, int], held: int) -> None:
    assert "process 77" in str(foreign_process(usage(others), usage(others | OURS | {77: held}), OURS.keys()))
    assert "process 77 came" in str(foreign_process(usage(others), usage(others | OURS | {77: 0}), OURS.keys()))


@given(processes, st.integers(SLACK_BYTES + 1, 9 * GIB))
def test_a_growing_process_is_foreign(others: dict[int, int], grown: int) -> None:
    before, after = others | {5: GIB}, others | {5: GIB + grown}
    assert "process 5 took" in str(foreign_process(usage(before), usage(after | OURS), OURS.keys()))


@given(processes, st.integers(0, SLACK_BYTES))
def test_driver_noise_is_not_a_foreign_process(others: dict[int, int], noise: int) -> None:
    grown = {pid: held + noise for pid, held in others.items()}
    assert foreign_process(usage(others), usage(grown | OURS), OURS.keys()) is None


@given(processes, st.integers(0, 9 * GIB))
def test_memory_of_no_listed_process_is_found_to_the_byte(others: dict[int, int], hidden: int) -> None:
    assert hidden_bytes(usage(others), usage(others | OURS, hidden), OURS.keys()) == hidden


@pytest.mark.parametrize("ours", [set(), {100, 101}])
def test_where_our_own_share_is_not_listed_nothing_is_called_hidden(ours: set[int]) -> None:
    assert hidden_bytes(usage({}), usage(OURS | {101: 0}, GIB), ours) == 0


def test_memory_of_no_listed_process_counts_only_if_it_stays() -> None:
    calm, torn = usage(OURS), usage(OURS, GIB)
    watch = CardWatch(Readings(calm, *[torn, torn, calm] * 3, *[torn] * HIDDEN_READS), usage({}), ["unused mark"])
    for _ in range(9 + HIDDEN_READS - 1):
        watch()
    with pytest.raises(ProbeEndedError, match="the driver does not list") as ended:
        watch()
    assert ended.value.verdict is Verdict.TAINTED


@pytest.mark.parametrize(("taken", "tainted"), [(256 * MIB, False), (GIB, True)])
def test_without_process_lists_the_whole_card_is_compared_after_the_run(taken: int, tainted: bool) -> None:
    empty, rested = usage({}, 2 * GIB), usage({}, 2 * GIB + 3 * MIB + taken)
    watch = CardWatch(Readings(empty, empty, rested, rested), usage({}), ["unused mark"])
    watch.settle()
    if not tainted:
        watch.rest(3 * MIB)
        return
    with pytest.raises(ProbeEndedError, match="by others"):
        watch.rest(3 * MIB)


def test_two_new_processes_for_one_family_are_both_foreign() -> None:
    newcomers = usage({100: GIB, 200: GIB})
    watch = CardWatch(Readings(newcomers, newcomers, newcomers), usage({}), ["unused mark"])
    with pytest.raises(ProbeEndedError, match="process 100 came"):
        watch()


def test_a_process_gone_at_the_second_reading_is_ignored() -> None:
    """A process of ours that ends between two readings looks foreign, and holds no memory any more."""
    watch = CardWatch(Readings(usage(OURS), usage(OURS | {300: GIB}), usage(OURS)), usage({}), ["unused mark"])
    watch()


def test_a_lost_card_ends_the_probe() -> None:
    class Lost:
        watches = True

        def read(self) -> Usage:
            raise NotMeasuredError("GPU is lost")

    with pytest.raises(ProbeEndedError, match="GPU is lost") as ended:
        CardWatch(Lost(), usage({}), [])
    assert ended.value.verdict is Verdict.CRASHED


def test_a_card_that_cannot_be_watched_is_never_tainted() -> None:
    watch = CardWatch(Unwatched(), Unwatched().read(), ["unused mark"])
    watch.settle()
    watch()
    watch.rest(0)


def test_waiting_ends_when_the_card_is_as_it_was_and_says_how_long_it_took() -> None:
    now = [0.0]
    readings = Readings(usage({1: 3 * GIB}), usage({1: 2 * GIB}), usage({1: GIB + SLACK_BYTES}))
    returned = wait_until_flat(
        readings, usage({1: GIB}), 10, clock=lambda: now[0], sleep=lambda s: now.append(now.pop() + s)
    )
    assert (returned.seconds, returned.left_bytes) == (pytest.approx(0.1), 0)
    require_flat(returned)


def test_waiting_ends_after_the_longest_time_and_says_what_is_left() -> None:
    now = [0.0]
    readings = Readings(*[usage({1: 3 * GIB})] * 300)
    returned = wait_until_flat(
        readings, usage({1: GIB}), 10, clock=lambda: now[0], sleep=lambda s: now.append(now.pop() + s)
    )
    assert returned.left_bytes == 2 * GIB
    assert 10 <= returned.seconds < 10.1
    with pytest.raises(ProbeEndedError, match=r"2.00 GiB of the card .* within 10 s") as ended:
        require_flat(returned)
    assert ended.value.verdict is Verdict.TAINTED


def test_a_card_as_before_passes() -> None:
    require_flat(Return(seconds=1.0, left_bytes=0))


class NVMLError(Exception):
    pass


def nvml(*, modern: bool = True, lists: bool = True, lost: bool = False, **shares: Any) -> SimpleNamespace:
    """The library on a machine with the card `GPU-1`: 79 GiB used of 80, of which the driver itself keeps one."""

    def check(fine: bool) -> None:
        if not fine:
            raise NVMLError("GPU is lost" if lost else "not supported")

    def handle(uuid: str) -> str:
        check(uuid == "GPU-1")
        return uuid

    def memory(device: str, version: int = 1) -> SimpleNamespace:
        check(not lost and (modern or version == 1))
        return SimpleNamespace(total=80 * GIB, used=79 * GIB - (version == 2) * GIB, free=GIB)

    def listed(kind: str) -> Any:
        def ask(device: str) -> list[SimpleNamespace]:
            check(lists)
            return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in shares.get(kind, {}).items()]

        return ask

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlMemory_v2=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetComputeRunningProcesses=listed("compute"),
        nvmlDeviceGetGraphicsRunningProcesses=listed("graphics"),
    )


def test_a_process_in_both_lists_counts_once() -> None:
    read = NvmlGauge("GPU-1", nvml(compute={7: GIB, 8: MIB}, graphics={7: GIB, 9: MIB})).read()
    assert read.processes == {7: GIB, 8: MIB, 9: MIB}


def test_a_share_that_the_driver_keeps_to_itself_is_zero() -> None:
    assert NvmlGauge("GPU-1", nvml(compute={7: None})).read().processes == {7: 0}


@pytest.mark.parametrize(("modern", "used"), [(True, 78 * GIB), (False, 79 * GIB)])
def test_the_drivers_reserve_is_neither_used_nor_free_if_reported(modern: bool, used: int) -> None:
    read = NvmlGauge("GPU-1", nvml(modern=modern)).read()
    assert (read.total_bytes, read.used_bytes, read.free_bytes) == (80 * GIB, used, GIB)


def test_without_lists_the_card_is_still_watched_as_a_whole() -> None:
    assert NvmlGauge("GPU-1", nvml(lists=False, compute={7: GIB})).read().processes == {}


def test_a_lost_card_is_not_measured() -> None:
    with pytest.raises(NotMeasuredError, match="GPU is lost"):
        NvmlGauge("GPU-1", nvml(lost=True)).read()


def test_a_gauge_that_cannot_watch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert gauge_for("GPU-1").watches
    assert not gauge_for("GPU-2").watches
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert not gauge_for("GPU-1").watches
