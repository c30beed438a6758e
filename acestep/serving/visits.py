"""Visits of the page, and requests over HTTP: each has its songs, its progress and a flag that stops its run."""

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from acestep.errors import AceStepError
from acestep.serving.failures import FailedRun, FailureKind, failure_of
from acestep.serving.time_left import TimeLeft
from acestep.song_settings import SongSettings
from acestep.stage import Stage

MOST_SESSIONS: Final = 1_000
"""Visits that are kept; the one that was inactive longest is dropped first."""

WAITING: Final = "waiting"

STOPPING: Final = "stopping"


class StoppedError(AceStepError):
    """A run that its own user stopped."""


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a run: `stage` is one of the pipeline, or one of those below; None for no run.

    The others are `waiting`, `loading`, `stopping`, and at the end `finished`, `stopped` or `failed`, with the
    `seconds` that it took. `left_s` is an estimate for the rest of the stage, None where there is none yet. `songs` of
    `of_songs` are finished; 0 of 0 until the first has begun to be decoded.
    """

    stage: str | None = None
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left_s: float | None = None
    songs: int = 0
    of_songs: int = 0

    @property
    def share(self) -> float:
        """The share of the stage that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class VisitSong(msgspec.Struct, frozen=True, kw_only=True):
    """One song of a visit: its file, the copy of it that is served, and its request.

    `settings` are those in its tags, None if they do not say. `seconds` is how long the run that made it took, None for
    a run of an earlier program. `outline` is its loudness along its length, 0 to 100.
    """

    path: Path
    served: Path
    caption: str
    seed: int
    duration_s: float
    settings: SongSettings | None = None
    seconds: float | None = None
    outline: tuple[int, ...] = ()


class Visit:
    """One visit. Its songs go to its own folder below `out`, whose `name` cannot be guessed."""

    def __init__(self, out: Path) -> None:
        self.name = secrets.token_hex(16)
        self.folder = out / self.name
        self.made: list[VisitSong] = []
        self.progress = RunProgress()
        self.failure: FailedRun | None = None
        self._clicks = 0
        # For each announced run that has not begun: whether it was stopped; the next one first.
        self._waiting: deque[bool] = deque()
        self._running = False
        self._time_left = TimeLeft()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a run is active or waiting."""
        return self._running or not all(self._waiting)

    def announce(self) -> None:
        """Note that a run was requested and is about to join the queue."""
        with self._lock:
            self._clicks += 1
            self._waiting.append(False)
            self.failure = None
            if not self._running:
                self.progress = RunProgress(stage=WAITING)

    def settle(self) -> None:
        """Note the end of a requested run; if it never started, it failed."""
        with self._lock:
            self._clicks = max(0, self._clicks - 1)
            while len(self._waiting) > self._clicks:
                self._waiting.popleft()
            if self.progress.stage == WAITING and not self.busy:
                self.progress = RunProgress(stage="failed")
                self.failure = FailedRun(kind=FailureKind.NOT_STARTED)

    @contextmanager
    def run(self) -> Iterator[None]:
        """The context of a run, from its start to its end; raises `StoppedError` if it was stopped while it waited."""
        how, began = "failed", time.monotonic()
        try:
            with self._lock:
                self._stop.clear()
                if self._waiting and self._waiting.popleft():
                    raise StoppedError("stopped")
                self._running = True
                self.failure = None
                self.progress = RunProgress(stage="loading")
            yield
            how = "finished"
        except StoppedError:
            how = "stopped"
            raise
        except Exception as error:
            self.failure = failure_of(error)
            raise
        finally:
            with self._lock:
                self._running = False
                over = RunProgress(stage=how, seconds=time.monotonic() - began)
                self.progress = RunProgress(stage=WAITING) if self.busy else over

    def report(self, stage: str, done: int, total: int) -> None:
        """Called by the pipeline before and after each part; raises `StoppedError` after the user asked to stop."""
        with self._lock:
            if self._stop.is_set():
                raise StoppedError("stopped")
            left_s = self._time_left.after(stage, done, total)
            is_decode = stage == Stage.DECODE
            songs, of_songs = (done, total) if is_decode else (self.progress.songs, self.progress.of_songs)
            self.progress = RunProgress(
                stage=stage, done=done, total=total, left_s=left_s, songs=songs, of_songs=of_songs
            )

    def stop(self) -> None:
        """Stop the run at its next step, and the waiting runs of this visit before they begin."""
        with self._lock:
            self._stop.set()
            self._waiting = deque(True for _ in self._waiting)
            if self._running:
                self.progress = msgspec.structs.replace(self.progress, stage=STOPPING)
            elif self.progress.stage == WAITING:
                self.progress = RunProgress(stage="stopped")


class Sessions:
    """The visits, by gradio's name for them; `dropped` is called with one that is kept no longer."""

    def __init__(self, out: Path, dropped: Callable[[Visit], None] = lambda _: None) -> None:
        self._out = out
        self._dropped = dropped
        self._known: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, name: str) -> Visit:
        """Return the visit of that name, a new one if it is unknown; without a name always a new one."""
        name = name or secrets.token_hex()
        with self._lock:
            session = self._known.setdefault(name, Visit(self._out))
            self._known.move_to_end(name)
            idle = (name for name, known in self._known.items() if not known.busy and known is not session)
            if len(self._known) > MOST_SESSIONS and (longest := next(idle, "")):
                self._dropped(self._known.pop(longest))
            return session
