"""A process that answers what it is asked; it ends with the one that started it."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Generic, TypeVar, cast

from acestep.errors import NotMeasuredError

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class Process(Generic[Sent, Received]):
    """Runs a command with the file descriptor of a channel added, to which `worker.answer_all` listens there."""

    def __init__(self, command: Sequence[str]) -> None:
        self.channel: Connection
        self.channel, theirs = Pipe()
        # A session of its own: Ctrl-C is the parent's, which then closes the channel.
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            [*command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()

    def ask(self, asked: Sent) -> None:
        """Say what is wanted; that the process has ended already is told with the answer."""
        with suppress(ConnectionError):
            self.channel.send(asked)

    def answer(self) -> Received:
        """Wait for what it says; `NotMeasuredError` where it says so, or ended."""
        try:
            said = self.channel.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise NotMeasuredError(f"a process that simulates ended with code {code}; run it again") from None
        if isinstance(said, NotMeasuredError):
            raise said
        return cast(Received, said)  # the channel's types are lost on mypy

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.channel.close()
        self._process.kill()
        self._process.wait()
