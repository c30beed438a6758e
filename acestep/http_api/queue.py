"""Requests for songs: they wait in one queue, run one at a time, and are kept for a day or until there are too many."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from acestep import api
from acestep.adapters.choice import Adapter
from acestep.adapters.chosen import adapters_named
from acestep.audio.write import require_writable
from acestep.errors import AceStepError
from acestep.http_api.body import SongsAsked, adapter_wishes, pipeline_request, think_wish, wishes_of
from acestep.http_api.documents import ErrorKind
from acestep.http_api.maker import Maker
from acestep.http_api.queued_request import QueuedRequest
from acestep.http_api.recordings import Recordings
from acestep.http_api.refused import RefusedError, unknown
from acestep.http_api.song_folders import open_song_folder
from acestep.limits.plan_document import PlanDocument, plan_document
from acestep.serving.bounds import DAY_S, MOST_OF_A_VISITOR, MOST_WAITING
from acestep.serving.uploads import uploaded_clip
from acestep.serving.visits import MOST_SESSIONS, Visit
from acestep.thinking import Think
from acestep.units import GIB

_LOG = logging.getLogger(__name__)

MOST_SONG_BYTES: Final = 16 * GIB
"""Files of songs that are kept; those of the oldest request are deleted first."""


class RequestQueue:
    """The requests of all clients. Songs go to folders below `out`, which are deleted with their request."""

    def __init__(
        self, maker: Maker, out: Path, recordings: Recordings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._maker = maker
        self._out = out
        self._recordings = recordings
        self._clock = clock
        self._known: dict[str, QueuedRequest] = {}
        self._waiting: deque[QueuedRequest] = deque()
        self._running: QueuedRequest | None = None
        self._changed = threading.Condition()
        self.is_ending = False
        self._worker = threading.Thread(target=self._work, name="requests", daemon=True)
        self._worker.start()

    def plan(self) -> PlanDocument:
        """Return the plan of this machine's card, with the settings of the server."""
        return plan_document(self._maker.plan(self._maker.overrides), self._maker.adapter_memory)

    def add(
        self, asked: SongsAsked, client: str, recordings: dict[str, Path], own: Collection[str] = ()
    ) -> QueuedRequest:
        """Let a request wait for its turn; `recordings` are the files of its uploads, by field.

        The uploads `own` came with it, and are deleted when it has ended. Raises `UsageError` for a format that
        cannot be written here and for an adapter that is not here, and `RefusedError` if too many wait.
        """
        require_writable(asked.audio_format)
        self._adapters_of(asked)
        queued = QueuedRequest(asked, client, Visit(self._out), recordings, tuple(own))
        with self._changed:
            self._require_place(client)
            queued.visit.announce()
            self._recordings.uploads.need(queued.id, recordings.values())
            self._known[queued.id] = queued
            self._waiting.append(queued)
            self._changed.notify()
        return queued

    def _require_place(self, client: str) -> None:
        if self.is_ending:
            raise RefusedError(503, ErrorKind.ENDING, "the server is ending; ask again when it runs again")
        active = [*self._waiting, *((self._running,) if self._running else ())]
        theirs = sum(queued.client == client for queued in active)
        if theirs >= MOST_OF_A_VISITOR:
            raise RefusedError(429, ErrorKind.BUSY, f"{theirs} of your requests wait already; wait until one has ended")
        if len(active) >= MOST_WAITING:
            raise RefusedError(429, ErrorKind.BUSY, f"{len(active)} requests wait already; ask again later")

    def of(self, name: str, client: str | None) -> QueuedRequest:
        """Return the request of that id, if it is this client's (None: any); raise `RefusedError` if there is none."""
        queued = self._known.get(name)
        if queued is None or (client is not None and queued.client != client):
            raise unknown("request")
        return queued

    def ahead(self, queued: QueuedRequest) -> int:
        """Return how many requests are made before this one; 0 if it does not wait."""
        with self._changed:
            if queued not in self._waiting:
                return 0
            return self._waiting.index(queued) + (self._running is not None)

    def cancel(self, queued: QueuedRequest) -> None:
        """Stop a request at its next step, or before it begins; one that has ended stays as it is."""
        with self._changed:
            waited = queued in self._waiting
            if waited:
                self._waiting.remove(queued)
            if queued.ended_at is None:
                queued.visit.stop()
        if waited:
            self._end(queued)

    def remove(self, queued: QueuedRequest) -> None:
        """Cancel a request, and delete it and its songs."""
        self.cancel(queued)
        with self._changed:
            self._known.pop(queued.id, None)
            queued.is_removed = True
            if queued.ended_at is not None:
                queued.delete_files()

    def expire(self) -> None:
        """Remove what ended more than a day ago, and the oldest above the limits of number and size."""
        ended = [queued for queued in list(self._known.values()) if queued.ended_at is not None]
        ended.sort(key=_ended_at)
        sizes = [queued.size_bytes for queued in ended]
        for number, queued in enumerate(ended):
            is_old = self._clock() - _ended_at(queued) > DAY_S
            # The newest stays, however large it is: its client could not fetch it before.
            is_newest = number == len(ended) - 1
            is_too_much = sum(sizes[number:]) > MOST_SONG_BYTES or len(ended) - number > MOST_SESSIONS
            if is_old or (is_too_much and not is_newest):
                self.remove(queued)

    def stop(self) -> None:
        """Stop the current request at its next step; no other begins, and none is taken any more."""
        with self._changed:
            self.is_ending = True
            self._changed.notify()
        self._maker.stop()

    def close(self) -> None:
        """Stop, wait until no request runs, and delete all songs: no later server knows them."""
        self.stop()
        self._worker.join()
        for queued in self._known.values():
            queued.delete_files()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self.is_ending)
                if self.is_ending:
                    return
                queued = self._running = self._waiting.popleft()
            try:
                self._run(queued)
            except Exception:
                # One client's failure must not stop the others; who runs the server finds the traceback in its log.
                traceback.print_exc()

    def _run(self, queued: QueuedRequest) -> None:
        try:
            with queued.visit.run(), api.memory_told():
                queued.document = self._make(queued)
        except AceStepError as error:
            # The visit has the failure, unless it was stopped. What its client gets tells no places.
            _LOG.info("request %s: %s", queued.id, error)
        except Exception:
            traceback.print_exc()
        # Outside the except blocks, whose tracebacks keep tensors of the run alive.
        self._end(queued)
        if queued.document is None:
            self._maker.rest()

    def _make(self, queued: QueuedRequest) -> dict[str, Any]:
        asked = queued.asked
        clips = {name: uploaded_clip(str(path)) for name, path in queued.recordings.items()}
        overrides = msgspec.structs.replace(self._maker.overrides, **wishes_of(asked))
        think = think_wish(asked)
        request, plan = api.settle_think(
            pipeline_request(asked, clips), think, lambda request: self._maker.plan(overrides, request)
        )
        open_song_folder(queued.visit.folder)
        return self._maker.generate(
            request,
            plan,
            asked.audio_format,
            queued.visit,
            unasked=think is Think.AS_PLANNED,
            mp3_bitrate=asked.mp3_bitrate,
            adapters=self._adapters_of(asked),
        )

    def _adapters_of(self, asked: SongsAsked) -> tuple[Adapter, ...] | None:
        wishes = adapter_wishes(asked)
        return None if wishes is None else adapters_named(wishes, self._maker.adapters)

    def _end(self, queued: QueuedRequest) -> None:
        queued.visit.settle()
        self._recordings.uploads.release(queued.id)
        self._recordings.discard(queued.own)
        with self._changed:
            queued.end(self._clock())
            if queued.is_removed or queued.document is None:
                queued.delete_files()
        self.expire()


def _ended_at(queued: QueuedRequest) -> float:
    return queued.ended_at or 0.0
