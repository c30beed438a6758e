"""The model behind the page, the plan of the settings, and songs for the visits, one run at a time."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from acestep import api
from acestep.audio import write as audio
from acestep.devices.open import look_with_torch
from acestep.engine.service import Service
from acestep.errors import UsageError
from acestep.hardware.card import Card, planning_card
from acestep.limits.machine import plan_of_card, with_remarks
from acestep.limits.own_runs import known_times, own_ratios
from acestep.limits.plan import Overrides, Plan
from acestep.limits.song_time import PlannedTimes, planned_times
from acestep.request import Request
from acestep.tiers import tiers_here
from acestep.ui.sessions import Sessions, StoppedError, Visit, VisitSong
from acestep.ui.settings import THIS_CARD, Controls, cards, controls_of, overrides_of
from acestep.ui.uploads import Uploads

MOST_REMEMBERED = 50
"""Songs of a visit that are listed besides the newest."""

_LOG = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

CopySong = Callable[[Path], Path]
"""Makes the served copy of a song, and returns its path."""


class Studio:
    """One model for all visitors. `overrides` are the wishes of the command line, songs go below `out`.

    Songs are made in one thread: PyTorch gives every computing thread its own cuBLAS handle, with a workspace of up to
    32 MiB that stays on the card.
    """

    def __init__(self, model: str, overrides: Overrides, out: Path) -> None:
        audio.open_folder(out)
        self._model = model
        self.overrides = api.of_model(model, overrides)
        self.uploads = Uploads()
        self.sessions = Sessions(out, lambda dropped: self.uploads.leave(dropped.name))
        found = look_with_torch()
        self._remarks = found.remarks
        self._lm_card = found.lm_card
        self._cards = cards(tiers_here(), self.overrides.variant, planning_card(os.environ, found.card))
        self._service = Service(model)
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="songs")
        self._closing = threading.Event()

    @property
    def tiers(self) -> tuple[str, ...]:
        """The choices of the tier selector."""
        return tuple(self._cards)

    def card(self, tier: str) -> Card:
        """Return the card for a choice of the tier selector; raise `UsageError` for an unknown choice."""
        if tier not in self._cards:
            raise UsageError(f"tier must be one of {', '.join(self._cards)}, got {tier!r}")
        return self._cards[tier]

    def start(self, tier: str = THIS_CARD) -> tuple[Controls, Plan]:
        """Return the settings and the plan that a tier begins with."""
        plan = self._plan(self.overrides, tier)
        return controls_of(plan, tier=tier, init_lm=plan.init_lm), plan

    def settle(self, wish: Controls, request: Request | None = None) -> tuple[Controls, Plan, tuple[str, ...]]:
        """Return the settings granted for a wish, their plan, and a sentence for each part that was not granted.

        They are for a `request`, or for songs of the usual length.
        """
        _, usual = self.start(wish.tier)
        overrides = overrides_of(wish, self.overrides.variant)
        if not wish.init_lm and wish.lm == (usual.lm or ""):
            # Asking for a language model by name makes room for it; a selector left alone asks for none.
            overrides = msgspec.structs.replace(overrides, lm=self.overrides.lm)
        plan = self._plan(overrides, wish.tier, request)
        refused = tuple(sentence for sentence in plan.warnings if sentence not in usual.warnings)
        return controls_of(plan, tier=wish.tier, init_lm=wish.init_lm), plan, refused

    def _plan(self, overrides: Overrides, tier: str, request: Request | None = None) -> Plan:
        """Return the plan for a choice of the tier selector.

        That of this card includes remarks about the cards here.
        """
        if tier != THIS_CARD:
            return plan_of_card(overrides, self.card(tier), request)
        return with_remarks(plan_of_card(overrides, self.card(tier), request, self._lm_card), self._remarks)

    def preload(self, notify: Callable[[str], None]) -> None:
        """Load what the first request will need."""
        controls, plan = self.start()
        with self._lock:
            self._service.preload(plan, think=controls.init_lm, notify=notify)

    def generate(
        self, request: Request, wish: Controls, audio_format: str, session: Visit, keep: CopySong
    ) -> dict[str, Any]:
        """Make the songs of a visit, write them to disk, add them to the visit, and return the document about them.

        Raises `StoppedError` if the visit stopped the run, and as the pipeline does.
        """
        audio.require_writable(audio_format)
        controls, plan, _ = self.settle(wish, request)
        document = self._in_turn(lambda: self._run(request, plan, controls, audio_format, session))
        # gradio deletes copies after a day: songs that can no longer be played are dropped too.
        before = [made for made in session.made if made.served.exists()][:MOST_REMEMBERED]
        session.made = [*_made(document, request, keep), *before]
        return document

    def _run(
        self, request: Request, plan: Plan, controls: Controls, audio_format: str, session: Visit
    ) -> dict[str, Any]:
        def progress(stage: str, done: int, total: int) -> None:
            if self._closing.is_set():
                raise StoppedError("the page is closing")
            session.report(stage, done, total)

        audio.open_folder(session.folder)
        result, used = self._service.generate(
            request,
            plan,
            progress=progress,
            # Thinking that the tier switched on is left out if it is impossible; thinking that the user asked for is
            # not.
            unasked=controls.init_lm,
        )
        api.keep_times(self._model, used, request, result)
        return api.write_songs(result, request, self._model, used, session.folder, audio_format)

    def rest(self) -> None:
        """Free what an interrupted run left behind."""
        self._in_turn(self._service.rest)

    @property
    def device(self) -> Card:
        """The device that songs are computed on."""
        return self._service.card

    @property
    def memory_model(self) -> Mapping[str, float]:
        """The memory model of the VRAM guard."""
        table = tiers_here().variants.get(self.overrides.variant)
        return {} if table is None else table.memory_model

    def times(self, plan: Plan) -> PlannedTimes | None:
        """Return how long songs take under a plan."""
        own, problem = own_ratios(plan)
        if problem:
            _LOG.warning("%s", problem)
        return planned_times(plan, known_times(plan), own)

    def free_bytes(self, tier: str) -> int:
        """Bytes free on the card of a tier; 0 if unknown: for another card, or for one in use or without a model."""
        seen = tier == THIS_CARD and self.card(tier).kind is self.device.kind
        if not seen or not self._lock.acquire(blocking=False):
            return 0
        try:
            return self._service.free_bytes()
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Stop the current run at its next step; no other run can start."""
        self._closing.set()

    def close(self) -> None:
        """Stop the current run and free everything."""
        self.stop()
        self._in_turn(self._service.close)

    def _in_turn(self, work: Callable[[], _Answer]) -> _Answer:
        def locked() -> _Answer:
            # Other threads read the free memory, and must not while the card is in use.
            with self._lock:
                return work()

        return self._worker.submit(locked).result()


def _made(document: dict[str, Any], request: Request, keep: CopySong) -> list[VisitSong]:
    return [
        VisitSong(
            path=Path(song["path"]),
            served=keep(Path(song["path"])),
            caption=request.caption,
            seed=song["seed"],
            duration_s=song["duration_s"],
        )
        for song in document["songs"]
    ]
