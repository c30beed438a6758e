"""What the page shows and does: the plan of the settings, and songs for the visits."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from acestep.adapter_memory import AdapterMemory
from acestep.adapters.choice import Adapter
from acestep.audio import write as audio
from acestep.checkpoints.catalog import is_named
from acestep.errors import UsageError
from acestep.hardware.card import Card, planning_card
from acestep.limits.machine import plan_of_card
from acestep.limits.own_runs import known_times, own_ratios
from acestep.limits.plan import Overrides, Plan
from acestep.limits.song_time import PlannedTimes, planned_times
from acestep.request import Request
from acestep.serving.song_maker import SongMaker
from acestep.serving.uploads import Uploads
from acestep.serving.visits import Sessions, Visit, VisitSong
from acestep.tiers import tiers_here
from acestep.ui.adapter_choices import AdapterChoices
from acestep.ui.archive import forget_packed
from acestep.ui.settings import THIS_CARD, Controls, cards, controls_of, overrides_of

MOST_REMEMBERED = 50
"""Songs of a visit that are listed besides the newest."""

_LOG = logging.getLogger(__name__)

CopySong = Callable[[Path], Path]
"""Makes the served copy of a song, and returns its path."""


class Studio:
    """One model for all visitors. `overrides` are the wishes of the command line, songs go below `out`.

    A song is made with all `adapters`, or with those that its visitor chooses. `opened` is called once the device is
    open, before a model is loaded.
    """

    def __init__(
        self,
        model: str,
        overrides: Overrides,
        out: Path,
        adapters: Sequence[Adapter] = (),
        opened: Callable[[], object] = lambda: None,
    ) -> None:
        audio.open_folder(out)
        self.adapters = AdapterChoices(adapters)
        self._model = model
        self._maker = SongMaker(model, overrides, adapters, opened)
        self.overrides = self._maker.overrides
        self.uploads = Uploads()
        self.sessions = Sessions(out, self._drop)

    @property
    def _cards(self) -> dict[str, Card]:
        return cards(tiers_here(), self.overrides.variant, planning_card(os.environ, self._maker.found.card))

    def _drop(self, visit: Visit) -> None:
        self.uploads.leave(visit.name)
        forget_packed(visit)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The choices of the tier selector."""
        return tuple(self._cards)

    def card(self, tier: str) -> Card:
        """Return the card for a choice of the tier selector; raise `UsageError` for an unknown choice."""
        known = self._cards
        if tier not in known:
            raise UsageError(f"tier must be one of {', '.join(known)}, got {tier!r}")
        return known[tier]

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
        same_lm = wish.lm == (usual.lm or "")
        if same_lm and not wish.init_lm:
            # Asking for a language model by name makes room for it; a selector left alone asks for none.
            overrides = msgspec.structs.replace(overrides, lm=self.overrides.lm)
        if same_lm and (overrides.offload, overrides.quantization) == (usual.offload, usual.quantization):
            # Left alone as well: the plan for this request chooses them, as on the command line.
            own = self.overrides
            overrides = msgspec.structs.replace(overrides, offload=own.offload, quantization=own.quantization)
        plan = self._plan(overrides, wish.tier, request)
        refused = tuple(sentence for sentence in plan.warnings if sentence not in usual.warnings)
        return controls_of(plan, tier=wish.tier, init_lm=wish.init_lm), plan, refused

    def _plan(self, overrides: Overrides, tier: str, request: Request | None = None) -> Plan:
        """Return the plan for a choice of the tier selector.

        That of this card includes remarks about the cards here.
        """
        if tier != THIS_CARD:
            return plan_of_card(overrides, self.card(tier), request)
        return self._maker.plan(overrides, request)

    def open(self) -> None:
        """Import PyTorch and open the device, as the first song would."""
        self._maker.open()

    def preload(self, notify: Callable[[str], None]) -> None:
        """Load what the first request will need."""
        self.open()
        controls, plan = self.start()
        self._maker.preload(plan, think=controls.init_lm, notify=notify)

    def generate(
        self,
        request: Request,
        wish: Controls,
        audio_format: str,
        session: Visit,
        keep: CopySong,
        *,
        adapter: str = "",
    ) -> dict[str, Any]:
        """Make the songs of a visit, write them to disk, add them to the visit, and return the document about them.

        Raises `StoppedError` if the visit stopped the run, and as the pipeline does.
        """
        audio.require_writable(audio_format)
        # PyTorch may know better than what the page began with which card there is.
        self.open()
        adapters = self.adapters.chosen(adapter)
        controls, plan, _ = self.settle(wish, request)
        # Thinking that the tier switched on is left out if it is impossible; thinking that the user asked for is not.
        document = self._maker.generate(
            request, plan, audio_format, session, unasked=controls.init_lm, adapters=adapters
        )
        # gradio deletes copies after a day: songs that can no longer be played are dropped too.
        before = [made for made in session.made if made.served.exists()][:MOST_REMEMBERED]
        session.made = [*_made(document, request, keep), *before]
        return document

    def plan_song(
        self, request: Request, wish: Controls, visit: Visit, *, adapter: str = ""
    ) -> tuple[Request, tuple[str, ...]]:
        """Return a request with what the language model plans filled in, and the warnings; raises as `generate`."""
        self.open()
        adapters = self.adapters.chosen(adapter)
        _, plan, _ = self.settle(wish, request)
        return self._maker.plan_song(request, plan, visit, adapters)

    def rest(self) -> None:
        """Free what an interrupted run left behind."""
        self._maker.rest()

    @property
    def model(self) -> str:
        """The name of the published weights, or the variant of those in a folder."""
        return self._model if is_named(self._model) else self.overrides.variant.value

    @property
    def device(self) -> Card:
        """The device that songs are computed on."""
        return self._maker.device

    @property
    def adapter_memory(self) -> AdapterMemory:
        """The memory of the adapters that are not part of the weights."""
        return self._maker.adapter_memory

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

    def free_and_held(self, tier: str) -> tuple[int, int | None]:
        """Bytes free on the card of a tier and those of the weights on it; 0 and None if unknown.

        They are unknown for another card, and for one in use or without a model.
        """
        seen = tier == THIS_CARD and self.card(tier).kind is self.device.kind
        return self._maker.free_and_held() if seen else (0, None)

    def stop(self) -> None:
        """Stop the current run at its next step; no other run can start."""
        self._maker.stop()

    def close(self) -> None:
        """Stop the current run and free everything."""
        self._maker.close()


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
