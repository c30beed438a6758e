"""The processes with the code of a change, as the judge sees them: they answer a line with a line."""

import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, cast

MOST_SECONDS = 600
"""Longest time for one answer; a cell of the slowest variant takes some 20 s."""

SHOW_FAULTS = ("-X", "faulthandler")
"""Options of Python with which a process that a signal ends says on stderr where it was."""

PASSED_ON = (
    *("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH"),
    *("OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"),
)
"""Environment variables that a process with the code of a change gets; a workflow's files and tokens are not there."""


class HeadGoneError(Exception):
    """The process with the code of a change has ended, or does not answer."""


class HeadLostError(Exception):
    """The machine of the process is gone; what it was asked can be asked elsewhere."""


class HeadChannel(Protocol):
    """A process with the code of a change."""

    def ask(self, line: bytes) -> bytes:
        """Return its answer to a line.

        Raises `HeadGoneError` where it has ended, or takes too long, and `HeadLostError` where its machine is lost.
        """
        ...

    def close(self) -> None:
        """End the process, whatever it is doing."""
        ...


class HeadPlaces(Protocol):
    """Where such processes run."""

    @property
    def most(self) -> int:
        """How many run at once."""
        ...

    @property
    def each_cell_apart(self) -> bool:
        """Whether cells that share a trace are probed apart, because there are enough processes."""
        ...

    def start(self, command: Sequence[str], search: Sequence[Path]) -> HeadChannel:
        """Start a command of Python, which finds modules in these folders first."""
        ...


class LocalPlaces:
    """Processes on this machine, one for each core of the gate's machines."""

    most = 2
    each_cell_apart = False

    def start(self, command: Sequence[str], search: Sequence[Path]) -> "LocalChannel":
        return LocalChannel(command, search)


class LocalChannel:
    """A process on this machine."""

    def __init__(self, command: Sequence[str], search: Sequence[Path]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=head_environment(*search),
            start_new_session=True,
        )
        self._sent = cast(IO[bytes], self._process.stdin)
        self._received = cast(IO[bytes], self._process.stdout)

    def ask(self, line: bytes) -> bytes:
        late = threading.Timer(MOST_SECONDS, self._process.kill)
        late.daemon = True
        late.start()
        try:
            self._sent.write(line)
            self._sent.flush()
            answer = self._received.readline()
        except (OSError, ValueError):
            answer = b""
        finally:
            late.cancel()
        if not answer.endswith(b"\n"):
            code = self._process.wait()
            raise HeadGoneError(f"a process that simulates ended with code {code}, or took over {MOST_SECONDS} s")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._sent, self._received):
            with suppress(OSError):
                pipe.close()


def head_environment(*search: Path) -> dict[str, str]:
    """The environment of a process with the code of a change, which finds modules in these folders first."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed | {"PYTHONPATH": os.pathsep.join(map(str, search)), "PYTHONSAFEPATH": "1"}
