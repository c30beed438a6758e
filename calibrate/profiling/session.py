"""The profiled model, loaded once for all runs."""

import os
import time
from collections.abc import Callable

import msgspec

from acestep.devices.base import Device
from acestep.devices.open import look_with_torch, open_here
from acestep.engine.service import Service
from acestep.errors import NotMeasuredError
from acestep.hardware.card import CPU, Card, planning_card
from acestep.limits.machine import carried_out, plan_of_card, with_remarks
from acestep.limits.of_model import of_model
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan
from acestep.request import Request
from acestep.result import Result
from acestep.units import Progress, silent
from calibrate.profiling.lm_recorder import LmRecorder


class Notes:
    """Passes each sentence to `tell`, and keeps it once in `sentences` for the document."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._sentences: dict[str, None] = {}

    def __call__(self, sentence: str) -> None:
        """Pass a sentence on and keep it."""
        self._sentences[sentence] = None
        self._tell(sentence)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences, in the order of their first appearance."""
        return tuple(self._sentences)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and where: `model` as `acestep generate --model` takes it, `device` a kind of card or `auto`."""

    model: str = "turbo"
    device: str = "auto"
    overrides: Overrides = AS_THE_TIER_SAYS


class ProfiledMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The device of this run, its card, and the plan as the device can carry it out."""

    device: Device
    card: Card
    plan: Plan
    model: str


def machine(wish: Wish, notes: Notes) -> ProfiledMachine:
    """Resolve everything that needs no weights; raise `NotMeasuredError` if there is no such device."""
    found = None if wish.device == CPU.kind else look_with_torch()
    detected, remarks = (CPU, ()) if found is None else (found.card, found.remarks)
    planned = plan_of_card(of_model(wish.model, wish.overrides), planning_card(os.environ, detected))
    device, card = open_here(detected)
    if wish.device not in ("auto", card.kind):
        raise NotMeasuredError(f"--device {wish.device} was asked for, and what could be used here is {card.name}")
    plan = carried_out(with_remarks(planned, remarks), card)
    for sentence in plan.warnings:
        notes(sentence)
    return ProfiledMachine(device=device, card=card, plan=plan, model=wish.model)


class ProfilingSession:
    """Makes songs repeatedly with the same `Service` that users get, and holds the recorder of its language model.

    The language model is loaded if songs are to `think`; an `unasked` one may be left out.
    """

    def __init__(self, at: ProfiledMachine, notes: Notes, *, think: bool, unasked: bool, constrained: bool) -> None:
        started = time.perf_counter()
        self.machine = at
        self.notes = notes
        self.recorder = LmRecorder(notes, constrained=constrained)
        self._service = Service(at.model, here=(at.device, at.card), open_lm=self.recorder.open)
        self.thinks = self._service.preload(at.plan, think=think, notify=notes, unasked=unasked)
        self.load_seconds = time.perf_counter() - started

    def generate(self, request: Request, progress: Progress = silent) -> Result:
        """Return the songs of a request as users get them, with only the warnings that are new."""
        result, _ = self._service.generate(request, self.machine.plan, progress=progress)
        known = self.notes.sentences
        news = tuple(sentence for sentence in result.warnings if sentence not in known)
        return msgspec.structs.replace(result, warnings=news)

    def rest(self) -> None:
        """Free what a failed song left on the device; must not be called inside the except block of its error."""
        self._service.rest()

    def close(self) -> None:
        """Free everything."""
        self._service.close()
