"""A process that simulates; it ends when its parent closes the channel.

python -m calibrate.executors.worker SYSTEM CAPABILITY FD
"""

import gc
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NoReturn

from acestep.budgets import System
from acestep.errors import NotMeasuredError
from calibrate.executors.answers import simulated_answer
from calibrate.executors.pool import Received, Sent
from calibrate.probes.base import Simulation


def serve_tasks(descriptor: int, open_prober: Callable[[], Simulation]) -> None:
    """Answer tasks with a simulated card until the other end of the channel is closed."""
    answer_all(descriptor, lambda: partial(simulated_answer, open_prober()))


def answer_all(descriptor: int, open_answering: Callable[[], Callable[[Sent], Received]]) -> NoReturn:
    """Answer one message after another; the process ends at once when the other end of the channel is closed."""
    channel: Connection[Received | NotMeasuredError, Sent] = Connection(descriptor)
    asked: SimpleQueue[Sent] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, asked), daemon=True).start()
    answering = open_answering()
    # Imported objects are frozen, so that garbage collection of the traces does not scan them.
    gc.freeze()
    while True:
        try:
            said: Received | NotMeasuredError = answering(asked.get())
        except NotMeasuredError as error:
            said = error
        channel.send(said)


def _listen(channel: "Connection[Received | NotMeasuredError, Sent]", asked: "SimpleQueue[Sent]") -> None:
    """Receive messages during work too, so that the end of the parent is noticed at once."""
    while True:
        try:
            asked.put(channel.recv())
        except (EOFError, OSError):
            os._exit(0)


def simulated_prober(system: System, capability: tuple[int, int]) -> Simulation:
    """The simulation of a card of a compute capability under a system."""
    from calibrate.probes.simulated.kernels import kernels_on
    from calibrate.probes.simulated.prober import SimulatedProber

    return SimulatedProber(kernels=kernels_on(system, capability))


def main(system: str, capability: str, descriptor: str) -> None:
    """Answer tasks with the simulated card that the command line names."""
    major, minor = map(int, capability.split("."))
    serve_tasks(int(descriptor), partial(simulated_prober, System(system), (major, minor)))


if __name__ == "__main__":
    main(*sys.argv[1:])
