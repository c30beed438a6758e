"""The language model that a service keeps open from one request to the next."""

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from acestep.devices.base import Device
from acestep.engine.second_cards import SecondCards
from acestep.hardware.card import Card
from acestep.knobs import Knobs
from acestep.limits.plan import Plan
from acestep.lm.language import Language

_LOG: Final = logging.getLogger(__name__)

OpenLanguage = Callable[[Plan, str, Device, Callable[[str], None]], Language]
"""Opens the language model of a plan, as `open_lm` does."""


class _LmKey(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a loaded language model: its knobs, its longest song in seconds, and its card if it has one."""

    knobs: Knobs
    longest_s: int
    card: Card | None


class KeptLanguage:
    """At most one language model, that of the last plan.

    `device` is the one for a plan without a card of its own for the language model; `second_cards` opens such a card.
    """

    def __init__(self, model: str, device: Device, open_language: OpenLanguage, second_cards: SecondCards) -> None:
        self._model = model
        self._device = device
        self._open_language = open_language
        self._second_cards = second_cards
        self._kept: tuple[_LmKey, Language] | None = None

    def is_of(self, plan: Plan) -> bool:
        """Return whether the language model of a plan is open."""
        return self._kept is not None and self._kept[0] == _key(plan)

    def of(self, plan: Plan, notify: Callable[[str], None]) -> Language:
        """Return the language model of a plan; it is opened if another one is open.

        Raises `NotEnoughMemoryError` if too little of its own card is free, and as `OpenLanguage` does.
        """
        if self._kept is None or not self.is_of(plan):
            self.close()
            _LOG.info("opening the language model %s by %s", plan.lm, plan.backend)
            card = plan.lm_card
            device = self._device if card is None else self._second_cards.device_for(plan, card, self._model)
            self._kept = _key(plan), self._open_language(plan, self._model, device, notify)
        return self._kept[1]

    def close(self) -> None:
        """Close the language model; nothing if none is open."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None


def _key(plan: Plan) -> _LmKey:
    return _LmKey(
        knobs=Knobs(lm=plan.lm, lm_quantization=plan.lm_quantization, backend=plan.backend),
        longest_s=plan.longest_planned_s,
        card=plan.lm_card,
    )
