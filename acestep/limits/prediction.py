"""The VRAM guard's predictions for one request on one card, and the limits that follow from them. Pure."""

from collections.abc import Callable

import msgspec

from acestep.hardware.card import Card
from acestep.knobs import Knobs, Variant
from acestep.limits.room import MemoryQuestion, longest_fitting, needed_bytes, question_of, songs_room
from acestep.request import Request
from acestep.tiers import Tier, TierTable


class Prediction:
    """The VRAM guard's predictions for a request on a card, or for songs of the usual length.

    `lm_apart` says that the language model runs on another card.
    """

    def __init__(
        self, card: Card, table: TierTable, variant: Variant, request: Request | None, *, lm_apart: bool
    ) -> None:
        self.room_bytes = songs_room(card, table)
        known = table.variants.get(variant)
        # A card that shares the machine's memory has no room of its own to predict for.
        self._model = known.memory_model if known is not None and self.room_bytes else {}
        self._card = card
        self._variant = variant
        self._request = request
        self._lm_apart = lm_apart

    def need(self, *, thinks: bool) -> Callable[[Knobs], int | None]:
        """Return what tells the bytes that the request needs under some knobs, None if they cannot be predicted."""
        asked = self._question(thinks=thinks)
        return lambda knobs: needed_bytes(self._model, knobs, asked)

    def reach(self, knobs: Knobs, *, thinks: bool) -> int:
        """Return the longest song in seconds that is predicted to fit, made one at a time; 0 if none."""
        return longest_fitting(self._model, knobs, self._question(thinks=thinks), self.room_bytes)

    def _question(self, *, thinks: bool) -> MemoryQuestion:
        return question_of(self._request, self._card, self._variant, thinks=thinks, lm_apart=self._lm_apart)


def with_float32_lms(limits: Tier, prediction: Prediction, notes: list[str]) -> Tier:
    """Return limits whose language models are those that are predicted to fit in float32, twice as large."""
    knobs = Knobs(offload=limits.offload, quantization=limits.quantization, lm_quantization=limits.lm_quantization)
    need = prediction.need(thinks=True)
    if need(knobs) is None:
        return limits

    def fits(model: str) -> bool:
        needed = need(msgspec.structs.replace(knobs, lm=model))
        return needed is not None and needed <= prediction.room_bytes

    models = tuple(model for model in limits.lm_models if fits(model))
    if models != limits.lm_models:
        notes.append(
            "This card has no bfloat16, so language models run in float32 and are twice as large there: of those of"
            f" this tier, {', '.join(models) or 'none'} fit."
        )
    longest = prediction.reach(msgspec.structs.replace(knobs, lm=models[-1]), thinks=True) if models else 0
    reached = {batch: min(seconds, longest) for batch, seconds in limits.frontier.with_lm.items()}
    frontier = msgspec.structs.replace(limits.frontier, with_lm=reached)
    recommended = limits.recommended_lm if limits.recommended_lm in models else models[-1] if models else None
    return msgspec.structs.replace(
        limits,
        lm_models=models,
        lm_needs={},
        recommended_lm=recommended,
        lm_songs_per_pass={name: songs for name, songs in limits.lm_songs_per_pass.items() if name in models},
        frontier=frontier,
        max_duration_s=msgspec.structs.replace(limits.max_duration_s, with_lm=frontier.longest(1, lm=True)),
        max_batch=msgspec.structs.replace(limits.max_batch, with_lm=frontier.headline_batch(lm=True)),
        init_lm=limits.init_lm and recommended is not None,
    )
