"""A process that answers tasks; it ends with its parent."""

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
    """Runs a command with the file descriptor of a channel added, on which `worker.answer_all` listens."""

    def __init__(self, command: Sequence[str]) -> None:
        self.channel: Connection
        self.channel, theirs = Pipe()
        # A separate session: Ctrl-C goes to the parent only, which then closes the channel.
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            [*command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()

    def ask(self, asked: Sent) -> None:
        """Send a task; a dead process is reported by `answer()`."""
        with suppress(ConnectionError):
            self.channel.send(asked)

    def answer(self) -> Received:
        """Wait for an answer; raise `NotMeasuredError` if the process sends one, or has ended."""
        try:
            said = self.channel.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise NotMeasuredError(f"a process that simulates ended with code {code}; run it again") from None
        if isinstance(said, NotMeasuredError):
            raise said
        return cast(Received, said)  # mypy does not know the channel's types

    def close(self) -> None:
        """Stop it at once."""
        self.channel.close()
        self._process.kill()
        self._process.wait()
