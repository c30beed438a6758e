"""A child is read, timed and ended, whatever it does; its messages count only if they are exactly valid."""

import gc
import os
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.knobs import Knobs
from calibrate.probes.child import Child, Patience, ProbeEndedError
from calibrate.probes.family import kill_all, members
from calibrate.probes.messages import Alive, Filled, LeaveFree, Order, Ready, Refused, RunOutcome, Said, Setup, line_of
from calibrate.verdict import Verdict
from calibrate.workload import Workload

CALM = Patience(wall_s=20, silence_s=20)
BRIEF = Patience(wall_s=0.3, silence_s=20)


def child(code: str) -> Child:
    """A process that does `code`, with `fd` as its end of the socket."""
    command = [sys.executable, "-S", "-c", f"import os, sys, time; fd = int(sys.argv[1]); {code}"]
    return Child(command, {"PATH": os.defpath})


def heard(process: Child, patience: Patience = CALM) -> bytes:
    try:
        return process.line(time.monotonic() + patience.wall_s, patience, lambda: None)
    finally:
        process.kill()
        assert members(process.mark) == set()


def end_of(code: str, patience: Patience = CALM) -> ProbeEndedError:
    with pytest.raises(ProbeEndedError) as ended:
        heard(child(code), patience)
    return ended.value


def test_lines_come_one_at_a_time_and_in_order() -> None:
    process = child("os.write(fd, b'one\\ntwo\\nthr'); os.write(fd, b'ee\\n')")
    lines = [process.line(time.monotonic() + 20, CALM, lambda: None) for _ in range(3)]
    process.kill()
    assert lines == [b"one", b"two", b"three"]


def test_what_is_sent_arrives() -> None:
    process = child("os.write(fd, os.read(fd, 100).upper())")
    process.send(b"hello\n")
    assert heard(process) == b"HELLO"


def test_a_line_said_just_before_the_end_counts() -> None:
    assert heard(child("os.write(fd, b'last\\n'); os._exit(3)")) == b"last"


def test_a_child_that_closes_its_socket_has_hung_up() -> None:
    end = end_of("os.close(fd); time.sleep(60)")
    assert end.verdict is Verdict.CRASHED
    assert "hung up" in str(end)


def test_of_the_last_words_one_line_is_passed_on() -> None:
    end = end_of("print('x' * 10_000_000); print('y' * 10_000_000, file=sys.stderr); sys.exit('the reason ' * 1000)")
    assert "ended with code 1" in str(end)
    assert "it said: the reason the reason" in str(end)
    assert len(str(end)) < 300


def test_the_last_words_may_be_about_memory() -> None:
    end = end_of("sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB')")
    assert end.verdict is Verdict.OOM


def test_a_child_that_cannot_start_python_is_a_crash() -> None:
    process = Child([sys.executable, "-c", "this is no python"], {"PATH": os.defpath})
    with pytest.raises(ProbeEndedError, match="SyntaxError"):
        heard(process)


def test_a_child_killed_by_a_signal_without_a_name_is_a_crash() -> None:
    end = end_of("os.kill(os.getpid(), 40)")
    assert end.verdict is Verdict.CRASHED
    assert "killed by signal 40" in str(end)


def test_the_time_limit_applies_while_a_child_writes_elsewhere() -> None:
    end = end_of("[print(n, flush=True) for n in range(10**12)]", BRIEF)
    assert end.verdict is Verdict.TIMEOUT


def test_the_parent_calls_tick_while_it_waits() -> None:
    looks = []
    process = child("time.sleep(60)")
    with pytest.raises(ProbeEndedError):
        process.line(time.monotonic() + BRIEF.wall_s, BRIEF, lambda: looks.append(1))
    process.kill()
    assert looks


def test_an_error_in_tick_is_raised() -> None:
    def look() -> None:
        raise ProbeEndedError(Verdict.TAINTED, "another process came")

    process = child("time.sleep(60)")
    with pytest.raises(ProbeEndedError, match="another process came"):
        process.line(time.monotonic() + 20, CALM, look)
    process.kill()


def test_a_child_can_be_killed_twice_and_ends_with_its_last_reference() -> None:
    process = child("time.sleep(60)")
    process.kill()
    process.kill()
    mark = (forgotten := child("time.sleep(60)")).mark
    del forgotten
    gc.collect()
    assert members(mark) == set()


def test_a_grandchild_is_of_the_family_wherever_it_went(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = child(
        "os.fork() or (os.setsid(), os.fork() and os._exit(0),"
        f" open({str(note)!r}, 'w').write(str(os.getpid())), os.write(fd, b'ready\\n'), time.sleep(60)); time.sleep(60)"
    )
    process.line(time.monotonic() + 20, CALM, lambda: None)
    assert int(note.read_text()) in members(process.mark)
    assert kill_all(process.mark) == set()
    assert members(process.mark) == set()
    process.kill()


def test_strangers_are_not_of_the_family() -> None:
    assert members("a mark that no process carries") == set()
    assert kill_all("a mark that no process carries") == set()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_patience_is_a_positive_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="wall_s must be positive"):
        Patience(wall_s=seconds, silence_s=1)
    with pytest.raises(ValueError, match="silence_s must be positive"):
        Patience(wall_s=1, silence_s=seconds)


ANSWER = RunOutcome(
    number=1,
    verdict=Verdict.FITS,
    stages=(),
    songs_per_pass=1,
    decode_path="gpu",  # type: ignore[arg-type]
    outside_bytes=0,
    resting_bytes=0,
    grown_bytes=0,
    problem="",
)


@pytest.mark.parametrize("said", [Ready(allocator=""), Refused(problem="no"), Alive(stage="denoise"), ANSWER])
def test_everything_a_child_says_is_one_line_and_read_back(said: Said) -> None:
    line = line_of(said)
    assert line.count(b"\n") == 1
    assert line_of(msgspec.json.decode(line, type=Said)) == line


@pytest.mark.parametrize(
    "told",
    [
        Setup(knobs=Knobs(), model="tiny"),
        Order(number=1, knobs=Knobs(), workload=Workload(batch=1, duration_s=10), cap_bytes=1, full=True),
        LeaveFree(free_bytes=0),
        Filled(held_bytes=1, free_bytes=2),
    ],
)
def test_everything_a_child_is_told_is_read_back(told: msgspec.Struct) -> None:
    assert msgspec.json.decode(line_of(told), type=type(told)) == told


@given(st.integers(1, len(line_of(ANSWER)) - 2))
def test_half_a_message_is_none(length: int) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(line_of(ANSWER)[:length], type=Said)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"number":1', b'"number":NaN'),
        (b'"number":1', b'"number":1e999'),
        (b'"number":1', b'"number":"1"'),
        (b'"outside_bytes":0', b'"outside_bytes":-1'),
        (b'"songs_per_pass":1', b'"songs_per_pass":0'),
        (b'"fits"', b'"fine"'),
        (b'"number":1', b'"number":1,"more":1'),
        (b'"RunOutcome"', b'"Setup"'),
    ],
)
def test_a_message_with_anything_wrong_in_it_is_none(right: bytes, wrong: bytes) -> None:
    line = line_of(ANSWER)
    assert right in line
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(line.replace(right, wrong), type=Said)
