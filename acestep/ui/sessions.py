"""Who is at the page: each visit has its songs, its progress and a flag that stops its run."""

import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from acestep.errors import AceStepError

MOST_SESSIONS: Final = 1_000
"""Visits that are remembered; the one that was away longest is forgotten first."""

WAITING: Final = "waiting"


class StoppedError(AceStepError):
    """A run that its own person stopped."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is: a stage of the pipeline or `waiting`, `loading`, `finished`, `stopped`, `failed`, "" for none.

    `seconds` is how long it took, once it is over.
    """

    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """The share of the stage that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One song of a visit: its file, the copy of it that is served, and what was asked for."""

    path: Path
    served: Path
    caption: str
    seed: int
    duration_s: float


class Session:
    """One visit. Songs go to a folder of its own below `out`, whose name nobody guesses."""

    def __init__(self, out: Path) -> None:
        self.folder = out / secrets.token_hex(16)
        self.made: list[Made] = []
        self.progress = Progress()
        self._announced = 0
        self._skipped = 0
        self._stop = threading.Event()
        self._began = 0.0

    def announce(self) -> None:
        """A run is about to join the queue."""
        self._announced += 1
        self.progress = Progress(stage=WAITING)

    def begin(self) -> None:
        """A run's turn has come; raises `StoppedError` where it was stopped while it waited."""
        self._announced = max(0, self._announced - 1)
        self._stop.clear()
        self._began = time.monotonic()
        if self._skipped:
            self._skipped -= 1
            raise StoppedError("stopped")
        self.progress = Progress(stage="loading")

    def report(self, stage: str, done: int, total: int) -> None:
        """What the pipeline calls; raises `StoppedError` once the person asked to stop."""
        if self._stop.is_set():
            raise StoppedError("stopped")
        self.progress = Progress(stage=stage, done=done, total=total)

    def end(self, how: str) -> None:
        """The run is over: `finished`, `stopped` or `failed`."""
        self.progress = Progress(stage=how, seconds=time.monotonic() - self._began)

    def settle(self) -> None:
        """What was announced has come to an end; where it never began it failed."""
        self._announced = 0
        if self.progress.stage == WAITING:
            self.progress = Progress(stage="failed")

    def stop(self) -> None:
        """Stop the run at its next step, and those of this visit that still wait before they begin."""
        self._stop.set()
        self._skipped = self._announced


class Sessions:
    """The visits, by the name gradio gives them."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, name: str) -> Session:
        """The visit of that name, new where it is not known; without a name one of its own."""
        name = name or secrets.token_hex()
        with self._lock:
            session = self._known.setdefault(name, Session(self._out))
            self._known.move_to_end(name)
            if len(self._known) > MOST_SESSIONS:
                self._known.popitem(last=False)
            return session
