"""The child of a prober: one loaded model, any number of capped runs, an answer to each on a separate socket.

python -m calibrate.probes.worker FD

Libraries may write to standard output; all messages go through the socket at file descriptor FD.
"""

import os
import select
import socket
import sys
from collections.abc import Callable
from threading import Thread
from typing import Protocol

import msgspec

from acestep.errors import AceStepError, HostMemoryError
from acestep.request import DecodePath
from calibrate.probes.family import FAMILY_MARK, kill_all
from calibrate.probes.messages import Alive, Done, Order, Ready, Refused, RunOutcome, Setup, StageOnCard, line_of
from calibrate.probes.oom import classify
from calibrate.verdict import Verdict


class Engine(Protocol):
    """Runs in the child: a model on a card, or a test's script."""

    @property
    def stages(self) -> tuple[StageOnCard, ...]:
        """The stages of the last run, also of one that failed."""
        ...

    def load(self, setup: Setup) -> str:
        """Load the model and open the card; returns the allocator's settings.

        Raises `AceStepError` where nothing could be measured with this child.
        """
        ...

    def run(self, order: Order, alive: Callable[[str], None]) -> Done:
        """Carry out an order; an error that ends it is raised unchanged."""
        ...

    def outside_bytes(self) -> int:
        """Bytes taken on the card outside this process's allocator."""
        ...

    def rest(self) -> int:
        """Free everything that a run left behind; return the bytes that stay reserved."""
        ...


def serve_probes(channel: socket.socket, engine: Engine) -> None:
    """Answer a prober until it closes the channel, or until a run has crashed, because the state is then unknown."""
    die_with(channel)
    with channel, channel.makefile("rb") as lines:
        setup = msgspec.json.decode(lines.readline(), type=Setup)
        try:
            settings = engine.load(setup)
        except AceStepError as error:
            channel.sendall(line_of(Refused(problem=str(error))))
            return
        channel.sendall(line_of(Ready(allocator=settings)))
        for line in lines:
            try:
                answer = _answer(engine, msgspec.json.decode(line, type=Order), channel)
            except HostMemoryError as error:  # a language model that is loaded at its first use
                channel.sendall(line_of(Refused(problem=str(error))))
                return
            channel.sendall(line_of(answer))
            if answer.verdict is Verdict.CRASHED:
                return


def die_with(channel: socket.socket) -> None:
    """End this process and its family when the other end of the socket is closed."""

    def wait() -> None:
        poll = select.poll()
        poll.register(channel.fileno(), 0)
        poll.poll()
        if FAMILY_MARK in os.environ:
            kill_all(os.environ[FAMILY_MARK], spared=os.getpid())
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _answer(engine: Engine, order: Order, channel: socket.socket) -> RunOutcome:
    outside = engine.outside_bytes()
    done = Done(songs_per_pass=order.workload.batch, decode_path=DecodePath.GPU)
    verdict, problem = Verdict.FITS, ""
    try:
        done = engine.run(order, lambda stage: channel.sendall(line_of(Alive(stage=stage))))
    except HostMemoryError:  # it says nothing about the card
        raise
    except Exception as error:
        verdict, problem = classify(error).verdict, _sentence(error)
    # Outside the except block, because inside it the traceback keeps every temporary of the failed run alive.
    if done.decode_path is DecodePath.CPU:
        verdict = Verdict.DEGRADED
    crashed = verdict is Verdict.CRASHED
    resting = 0 if crashed else engine.rest()
    return RunOutcome(
        number=order.number,
        verdict=verdict,
        stages=engine.stages,
        songs_per_pass=done.songs_per_pass,
        decode_path=done.decode_path,
        outside_bytes=outside,
        resting_bytes=resting,
        grown_bytes=0 if crashed else max(0, engine.outside_bytes() - outside),
        problem=problem,
        warnings=done.warnings,
    )


def _sentence(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def main() -> None:
    """Serve a real card through the descriptor named on the command line."""
    from calibrate.probes.cuda_card import CudaCard
    from calibrate.probes.engine import PipelineEngine

    serve_probes(socket.socket(fileno=int(sys.argv[1])), PipelineEngine(CudaCard()))


if __name__ == "__main__":
    main()
