"""Processes that answer what they are asked; they end with the one that started them.

Not those of `concurrent.futures`: a task goes to the process that has traced what it needs, and closing ends a process
in the middle of its work.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, Generic, TypeVar, cast

from acestep.errors import NotMeasuredError

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class Process(Generic[Sent, Received]):
    """Runs a command with the file descriptor of a channel added, to which `worker.answer_all` listens there."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        errors: IO[bytes] | None = None,
    ) -> None:
        """Start it in an environment, and with a file for what it writes to stderr; those of this process if None."""
        self.channel: Connection
        self.channel, theirs = Pipe()
        self.task: Sent | None = None
        # A session of its own: Ctrl-C is the parent's, which then closes the channel.
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            [*command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environ,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        self.pid = self._process.pid

    def ask(self, task: Sent) -> None:
        """Send a task; a process that has ended already is reported by `answer`."""
        self.task = task
        with suppress(ConnectionError):
            self.channel.send(task)

    def answer(self) -> Received:
        """Wait for the answer; `NotMeasuredError` where the process says so, or ended."""
        self.task = None
        try:
            said = self.channel.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise NotMeasuredError(f"a process that answers probes ended with code {code}; run it again") from None
        if isinstance(said, NotMeasuredError):
            raise said
        return cast(Received, said)  # the channel's types are lost on mypy

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.channel.close()
        self._process.kill()
        self._process.wait()


class ProcessPool(Generic[Sent, Received]):
    """Processes of one command, started when they are first looked at; each works on one task at a time."""

    def __init__(self, size: int, command: Sequence[str]) -> None:
        self._size = size
        self._command = command
        self._started: list[Process[Sent, Received]] = []

    @property
    def processes(self) -> Sequence[Process[Sent, Received]]:
        """All of them."""
        while len(self._started) < self._size:
            self._started.append(Process(self._command))
        return self._started

    def first_answer(self) -> Received:
        """Wait for the first answer of those that are at work; `NotMeasuredError` where one cannot answer."""
        return self._first_done().answer()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for process in self._started:
            process.close()

    def _first_done(self) -> Process[Sent, Received]:
        by_channel = {process.channel: process for process in self._started if process.task is not None}
        return by_channel[cast(Connection, wait(list(by_channel))[0])]
