"""A child process that is not trusted: it may crash, hang, flood, send wrong answers or leave processes behind.

Each of these is a known verdict.
"""

import os
import selectors
import signal
import socket
import subprocess
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from calibrate.probes.family import FAMILY_MARK, kill_all
from calibrate.probes.messages import LONGEST_LINE
from calibrate.probes.oom import classify_text
from calibrate.verdict import Verdict

TICK_S = 0.05
"""Seconds between two checks of a waiting parent: the clock, the card, and whether the child is alive."""

TAIL_BYTES = 16_384
"""Bytes kept from the end of each of a child's two outputs."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits in seconds: for an answer, and for the silence between two signs of life."""

    wall_s: float
    silence_s: float

    def __post_init__(self) -> None:
        for name in ("wall_s", "silence_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"patience {name} must be positive seconds, got {getattr(self, name)}")


class ProbeEndedError(Exception):
    """A probe ended without an answer of its own; `verdict` is the resulting verdict."""

    def __init__(self, verdict: Verdict, problem: str) -> None:
        super().__init__(problem)
        self.verdict = verdict


class Child:
    """A process with a socket for messages. Its outputs are read and dropped except for their ends.

    The socket's descriptor is the last argument of its command.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            [*command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env={**environ, FAMILY_MARK: self.mark},
            start_new_session=True,
        )
        theirs.close()
        self._socket.setblocking(False)
        self._inbox = bytearray()
        self._output = {pipe: bytearray() for pipe in self._outputs}
        self._selector = selectors.DefaultSelector()
        for source in (self._socket, *self._outputs):
            os.set_blocking(source.fileno(), False)
            self._selector.register(source, selectors.EVENT_READ)
        self._last_sign = time.monotonic()
        self._finish = weakref.finalize(self, _end, self._process, self.mark, self._socket, self._selector)

    @property
    def _outputs(self) -> list[Any]:
        return [self._process.stdout, self._process.stderr]

    def kill(self) -> None:
        """End the child and everything it started, and wait until they are gone; safe to call again."""
        self._finish()

    def send(self, line: bytes) -> None:
        """Send a line to the child; a dead child is detected when its answer is awaited."""
        self._last_sign = time.monotonic()
        with suppress(OSError):
            self._socket.sendall(line)

    def line(self, deadline: float, patience: Patience, tick: Callable[[], None]) -> bytes:
        """Return the next line from the child, by `deadline` on the monotonic clock.

        `tick` is called while waiting and may raise. Raises `ProbeEndedError` if no line comes.
        """
        looked_up = -TICK_S
        while b"\n" not in self._inbox:
            ended = self._process.poll() is not None
            now = time.monotonic()
            self._check_clock(now, deadline, patience)
            if now >= looked_up + TICK_S:
                tick()
                looked_up = now
            self._receive(0.0 if ended else TICK_S)
            if b"\n" not in self._inbox and (ended or self._socket not in self._selector.get_map()):
                raise self._ended()
            if len(self._inbox) > LONGEST_LINE:
                raise ProbeEndedError(Verdict.CRASHED, "the probe's child said more than any message has")
        line, _, rest = self._inbox.partition(b"\n")
        self._inbox = rest
        return bytes(line)

    def _check_clock(self, now: float, deadline: float, patience: Patience) -> None:
        if now >= deadline:
            raise ProbeEndedError(Verdict.TIMEOUT, f"no answer within {patience.wall_s:g} s")
        if now - self._last_sign >= patience.silence_s:
            raise ProbeEndedError(Verdict.TIMEOUT, f"no sign of life for {patience.silence_s:g} s")

    def _receive(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            try:
                chunk = os.read(key.fd, LONGEST_LINE)
            except BlockingIOError:
                continue
            except OSError:  # the child died before it read our message
                chunk = b""
            if not chunk:
                self._selector.unregister(key.fileobj)
                continue
            self._last_sign = time.monotonic()
            if key.fileobj is self._socket:
                self._inbox += chunk
            else:
                words = self._output[key.fileobj]
                words += chunk
                del words[:-TAIL_BYTES]

    def _ended(self) -> ProbeEndedError:
        """Return an error that says how the child ended, and its last output."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._receive(0.0)
        code = self._process.returncode
        if code is None:
            how = "the probe's child hung up without an answer"
        elif code < 0:
            how = f"the probe's child was killed by {_signal_name(-code)} before it answered"
        else:
            how = f"the probe's child ended with code {code} and no answer"
        said = self._output[self._process.stderr].decode(errors="replace")
        last = next((line.strip()[:200] for line in reversed(said.split("\n")) if line.strip()), "")
        return ProbeEndedError(classify_text(said).verdict, f"{how}; it said: {last}" if last else how)


def _signal_name(number: int) -> str:
    """Real-time signals have no names, except the first and the last."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(process: subprocess.Popen[bytes], mark: str, *ours: Any) -> None:
    kill_all(mark)
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # stuck in the driver: no signal can end it now
        process.wait(5.0)
    for source in (*ours, process.stdout, process.stderr):
        source.close()
