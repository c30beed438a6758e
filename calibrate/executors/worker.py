"""A process that simulates; it ends when nobody is there to hear its answers.

python -m calibrate.executors.worker FD
"""

import gc
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue

from acestep.errors import NotMeasuredError
from calibrate.executors.base import answered
from calibrate.probes.base import Prober
from calibrate.questions import Entry, Task


def serve(descriptor: int, open_prober: Callable[[], Prober]) -> None:
    """Answer tasks until the other end of the channel is closed."""
    channel: Connection[Entry | NotMeasuredError, Task] = Connection(descriptor)
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, tasks), daemon=True).start()
    prober = open_prober()
    # What was imported stays, so that no collection of the traces' garbage has to walk it.
    gc.freeze()
    while True:
        try:
            said: Entry | NotMeasuredError = answered(prober, tasks.get())
        except NotMeasuredError as error:
            said = error
        channel.send(said)


def _listen(channel: "Connection[Entry | NotMeasuredError, Task]", tasks: "SimpleQueue[Task]") -> None:
    """Take tasks in, also while one is being worked on: only so is it noticed at once that the parent is gone."""
    while True:
        try:
            tasks.put(channel.recv())
        except (EOFError, OSError):
            os._exit(0)


def _simulated() -> Prober:
    from calibrate.probes.simulated.prober import SimulatedProber

    return SimulatedProber()


if __name__ == "__main__":
    serve(int(sys.argv[1]), _simulated)
