"""One model that makes the songs of all visitors, one run at a time."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from acestep.adapters.choice import Adapter
from acestep.adapters.chosen import switched_on
from acestep.adapters.memory import memory_apart
from acestep.audio import write as audio
from acestep.hardware.card import Card
from acestep.hardware.detection import look
from acestep.importing import without_collection
from acestep.limits.machine import plan_of
from acestep.limits.of_model import of_model
from acestep.limits.plan import Overrides, Plan
from acestep.request import Request
from acestep.serving.visits import StoppedError, Visit
from acestep.units import Progress

if TYPE_CHECKING:
    from acestep.engine.service import Service

_Answer = TypeVar("_Answer")


class SongMaker:
    """Makes songs with `model`; `overrides` and `adapters` are the wishes of the command line.

    Songs are made in one thread: PyTorch gives every computing thread its own cuBLAS handle, with a workspace of up to
    32 MiB that stays on the card. PyTorch is imported and the device is opened by `open`, or for the first song; until
    then `found` is what is known of the cards without PyTorch. `opened` is called once, when the device is open and
    before a model is loaded.
    """

    def __init__(
        self,
        model: str,
        overrides: Overrides,
        adapters: Sequence[Adapter] = (),
        opened: Callable[[], object] = lambda: None,
    ) -> None:
        self._when_opened = opened
        self._model = model
        self.adapters = tuple(adapters)
        self.adapter_memory = memory_apart(adapters)
        self.overrides = of_model(model, overrides)
        self.found = look(os.environ)
        self._opened: Service | None = None
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="songs")
        self._closing = threading.Event()

    def open(self) -> "Service":
        """Import PyTorch and open the device, unless that is done; it takes seconds.

        Raises `UsageError` for an invalid environment variable.
        """
        with self._opening:
            if self._opened is None:
                with without_collection():
                    from acestep.devices.open import look_with_torch
                    from acestep.engine.service import Service
                self.found = look_with_torch()
                self._opened = Service(self._model)
                self._when_opened()
            return self._opened

    @property
    def _service(self) -> "Service":
        return self.open()

    def plan(self, overrides: Overrides, request: Request | None = None) -> Plan:
        """Return the plan of this machine's card, for a request if there is one, with remarks about the cards here."""
        return plan_of(self.found, overrides, request, self.adapter_memory)

    def preload(self, plan: Plan, *, think: bool, notify: Callable[[str], None]) -> None:
        """Load what requests under a plan will need."""
        with self._lock:
            self._service.preload(plan, think=think, notify=notify, adapters=self.adapters)

    def plan_song(
        self, request: Request, plan: Plan, visit: Visit, adapters: Sequence[Adapter]
    ) -> tuple[Request, tuple[str, ...]]:
        """Return a request with what the language model plans filled in, and the warnings.

        Raises `StoppedError` as `generate` does, and as `Service.plan_song` does.
        """
        progress, chosen = self._watched_by(visit), switched_on(adapters, self.adapters)
        return self._in_turn(lambda: self._service.plan_song(request, plan, progress=progress, adapters=chosen))

    def generate(
        self,
        request: Request,
        plan: Plan,
        audio_format: str,
        visit: Visit,
        *,
        unasked: bool,
        mp3_bitrate: int | None = None,
        adapters: Sequence[Adapter] | None = None,
    ) -> dict[str, Any]:
        """Make the songs of a visit, write them to its folder, and return the document about them.

        `unasked` thinking is left out if it is impossible. `adapters` of None are those of the command line. Raises
        `StoppedError` if the visit stopped the run or the program ends, and as the pipeline does.
        """
        progress = self._watched_by(visit)

        def run() -> dict[str, Any]:
            from acestep import api

            audio.open_folder(visit.folder)
            chosen = self.adapters if adapters is None else switched_on(adapters, self.adapters)
            result, used = self._service.generate(request, plan, progress=progress, unasked=unasked, adapters=chosen)
            model, folder = self._model, visit.folder
            document = api.write_songs(result, request, model, used, folder, audio_format, mp3_bitrate)
            api.keep_times(model, used, request, result)
            return document

        return self._in_turn(run)

    def _watched_by(self, visit: Visit) -> Progress:
        def progress(stage: str, done: int, total: int) -> None:
            if self._closing.is_set():
                raise StoppedError("the program is ending")
            visit.report(stage, done, total)

        return progress

    def rest(self) -> None:
        """Free what an interrupted run left behind; must not be called inside the except block of its error."""
        if self._opened is not None:
            self._in_turn(self._opened.rest)

    @property
    def device(self) -> Card:
        """The device that songs are computed on; until it is open, the card that was found."""
        return self.found.card if self._opened is None else self._opened.card

    def free_and_held(self) -> tuple[int, int | None]:
        """Bytes free on the device and those of the weights on it; 0 and None for one in use or without a model."""
        if self._opened is None or not self._lock.acquire(blocking=False):
            return 0, None
        try:
            return self._opened.free_bytes(), self._opened.held_bytes
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Stop the current run at its next step; no other run can start."""
        self._closing.set()

    def close(self) -> None:
        """Stop the current run and free everything."""
        self.stop()
        if self._opened is not None:
            self._in_turn(self._opened.close)

    def _in_turn(self, work: Callable[[], _Answer]) -> _Answer:
        def locked() -> _Answer:
            # Other threads read the free memory, and must not while the card is in use.
            with self._lock:
                return work()

        return self._worker.submit(locked).result()
