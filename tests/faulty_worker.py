"""A probe's child without a card: the real worker around an engine whose model name selects its fault.

python tests/faulty_worker.py [ballast] FD
"""

import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from acestep.errors import NotMeasuredError
from acestep.request import DecodePath
from acestep.units import GIB, MIB
from calibrate.probes import ballast, worker
from calibrate.probes.messages import Done, Filled, Order, RunOutcome, Setup, StageOnCard, line_of
from calibrate.verdict import Verdict

NEED_PER_SECOND = 10 * MIB
FULL_STEPS_NEED = MIB
CONTEXT_GROWTH = 100 * MIB


class OutOfMemoryError(RuntimeError):
    """What torch raises, without torch."""


def stage(name: str, n_bytes: int, outside: int = 0) -> StageOnCard:
    return StageOnCard(
        name=name,
        seconds=1.5,
        songs_per_pass=1,
        peak_allocated_bytes=n_bytes,
        peak_reserved_bytes=n_bytes,
        outside_bytes=outside,
    )


def answer(number: int, peaks: StageOnCard) -> RunOutcome:
    return RunOutcome(
        number=number,
        verdict=Verdict.FITS,
        stages=(peaks,),
        songs_per_pass=1,
        decode_path=DecodePath.GPU,
        outside_bytes=0,
        resting_bytes=0,
        grown_bytes=0,
        problem="",
    )


class FaultyEngine:
    """A model that needs 10 MiB for each second of song, and behaves until it is asked to run."""

    def __init__(self, channel: socket.socket) -> None:
        self.stages: tuple[StageOnCard, ...] = ()
        self._channel = channel
        self._resting = 0
        self._outside = GIB
        self._path = DecodePath.GPU

    def load(self, setup: Setup) -> str:
        self._fault = getattr(self, "_" + setup.model.replace("-", "_"))
        if setup.model == "refuses":
            raise NotMeasuredError("there is no card here")
        if setup.model == "dies-while-loading":
            os.kill(os.getpid(), signal.SIGKILL)
        return "expandable_segments:False"

    def outside_bytes(self) -> int:
        return self._outside

    def rest(self) -> int:
        return self._resting

    def run(self, order: Order, alive: Callable[[str], None]) -> Done:
        self.stages = ()
        alive("encode")
        self._order = order
        self._fault()
        need = int(order.workload.duration_s) * NEED_PER_SECOND + order.full * FULL_STEPS_NEED
        if need > order.cap_bytes:
            self.stages = (stage("denoise", order.cap_bytes),)
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has 79.10 GiB.")
        self.stages = self.stages or (stage("denoise", need, self._outside),)
        said = (f"child {os.getpid()}", f"cap {order.cap_bytes}")
        return Done(songs_per_pass=order.workload.batch, decode_path=self._path, warnings=said)

    def _say(self, line: bytes) -> None:
        self._channel.sendall(line)

    def _fits(self) -> None:
        """No fault."""

    _refuses = _dies_while_loading = _fits

    def _leaks(self) -> None:
        self._resting += GIB

    def _decodes_on_the_processor(self) -> None:
        self._path = DecodePath.CPU

    def _grows_outside(self) -> None:
        self.stages = (stage("encode", MIB, GIB), stage("denoise", self._order.cap_bytes, GIB + CONTEXT_GROWTH))

    def _loads_kernels(self) -> None:
        """Once, as kernels do."""
        self._outside = GIB + CONTEXT_GROWTH

    def _sigsegv(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _sigkill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _exits(self) -> None:
        os._exit(0)

    def _hangs(self) -> None:
        time.sleep(60)

    def _naps(self) -> None:
        time.sleep(0.5)

    def _hangs_deaf(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)

    def _hangs_in_a_grandchild(self) -> None:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=True)

    def _leaves_a_daemon(self) -> None:
        """A grandchild in its own session whose parent has ended, with the socket still open.

        Then the child ends too.
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            # If it ended before it was found in the family, it would look foreign.
            time.sleep(0.5)
            os._exit(0)
        os.wait()
        os._exit(3)

    def _chatters_forever(self) -> None:
        while True:
            self._say(b'{"type": "Alive", "stage": "denoise"}\n')
            time.sleep(0.01)

    def _floods(self) -> None:
        for _ in range(160):
            os.write(1, b"x" * 65536)
            os.write(2, b"y" * 65536)

    def _floods_forever(self) -> None:
        while True:
            os.write(1, b"x" * 65536)

    def _stops_in_mid_sentence(self) -> None:
        self._say(line_of(answer(1, stage("denoise", MIB)))[:60])
        os._exit(0)

    def _hangs_in_mid_sentence(self) -> None:
        self._say(line_of(answer(1, stage("denoise", MIB)))[:60])
        time.sleep(60)

    def _says_nan(self) -> None:
        self._say(line_of(answer(1, stage("denoise", MIB))).replace(b"1.5", b"NaN"))
        time.sleep(60)

    def _says_less_than_nothing(self) -> None:
        self._say(line_of(answer(1, stage("denoise", MIB))).replace(b"1.5", b"-1.5"))
        time.sleep(60)

    def _says_too_much(self) -> None:
        self._say(line_of(answer(1, stage("denoise", MIB))).replace(b'"number"', b'"lucky": 7, "number"'))
        time.sleep(60)

    def _never_ends_its_line(self) -> None:
        while True:
            self._say(b"la" * 65536)

    def _answers_another_question(self) -> None:
        self._say(line_of(answer(7, stage("denoise", MIB))))
        time.sleep(60)

    def _answers_twice(self) -> None:
        self._say(line_of(answer(self._order.number, stage("denoise", MIB))))

    def _writes_everywhere(self) -> None:
        for fd in set(range(3, 256)) - {self._channel.fileno()}:
            with suppress(OSError):
                os.write(fd, line_of(answer(self._order.number, stage("denoise", MIB))))

    def _speaks_out_of_turn(self) -> None:
        self._say(line_of(Filled(held_bytes=1, free_bytes=1)))
        time.sleep(60)

    def _holds_more_than_its_cap(self) -> None:
        self._say(line_of(answer(1, stage("denoise", self._order.cap_bytes + 1))))
        time.sleep(60)

    def _hangs_up(self) -> None:
        self._channel.shutdown(socket.SHUT_RDWR)
        time.sleep(60)

    def _loses_the_driver(self) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    def _fills_the_disk(self) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"a compiled kernel")

    def _aborts_without_memory(self) -> None:
        sys.stderr.write("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
        sys.stderr.flush()
        os.abort()

    def _sings_of_memory(self) -> None:
        raise ValueError('lyrics "I am out of memory." are too long')


class Piece:
    """Memory that stores only its size."""


class Shelf:
    """A card of 24 GiB to put ballast on; what nothing refers to is cached until a flush, as PyTorch's is."""

    def __init__(self, total_bytes: int = 24 * GIB) -> None:
        self.total_bytes = total_bytes
        self.taken_bytes = 0
        self._cached_bytes = 0

    def free_bytes(self) -> int:
        return self.total_bytes - self.taken_bytes

    def take(self, n_bytes: int) -> Piece:
        if n_bytes > self.free_bytes():
            raise OutOfMemoryError("CUDA out of memory.")
        self.taken_bytes += n_bytes
        piece = Piece()
        weakref.finalize(piece, self._cache, n_bytes)
        return piece

    def flush(self) -> None:
        self.taken_bytes -= self._cached_bytes
        self._cached_bytes = 0

    def _cache(self, n_bytes: int) -> None:
        self._cached_bytes += n_bytes


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[-1]))
    if sys.argv[1] == "ballast":
        ballast.serve_ballast(channel, Shelf())
    else:
        worker.serve_probes(channel, FaultyEngine(channel))


if __name__ == "__main__":
    main()
