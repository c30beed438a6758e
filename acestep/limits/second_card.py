"""Limits where a language model runs on a card of its own: two smaller problems, each with its own room. Pure."""

import msgspec

from acestep.hardware.card import Card
from acestep.knobs import LM_MODELS, Backend, Knobs
from acestep.limits.capabilities import itemsize_of
from acestep.limits.fallbacks import moves_weights
from acestep.limits.think_memory import think_bytes
from acestep.tiers import Tier
from acestep.units import gib


def lm_bytes_on(card: Card, knobs: Knobs, duration_s: float) -> int:
    """Return the bytes that the knobs' language model takes of its own card to plan a song."""
    return think_bytes(msgspec.structs.replace(knobs, backend=Backend.PT), duration_s, itemsize_of(card))


def models_on(card: Card, knobs: Knobs, duration_s: float, room_bytes: int) -> tuple[str, ...]:
    """Return the language models that fit on a card of their own; all where it shares the machine's memory.

    Main memory is asked when a model is loaded.
    """
    if not moves_weights(card):
        return LM_MODELS
    needs = {model: lm_bytes_on(card, msgspec.structs.replace(knobs, lm=model), duration_s) for model in LM_MODELS}
    return tuple(model for model, needed in needs.items() if needed <= room_bytes)


def beside(limits: Tier, card: Card, duration_s: float, room_bytes: int) -> Tier:
    """Return the limits of songs whose language model runs on another `card`: those without a language model.

    PyTorch runs it, because vLLM always takes the first card. The largest model that fits is recommended; on a
    processor, where that would take long, the smallest.
    """
    models = models_on(card, Knobs(), duration_s, room_bytes)
    place = -1 if moves_weights(card) else 0
    alone = bool(models)
    return msgspec.structs.replace(
        limits,
        lm_models=models,
        lm_needs={},
        recommended_lm=models[place] if alone else None,
        lm_quantization=None,
        lm_songs_per_pass={},
        backend=Backend.PT,
        backends_allowed=(Backend.PT,),
        init_lm=alone,
        frontier=msgspec.structs.replace(
            limits.frontier,
            with_lm=limits.frontier.without_lm if alone else dict.fromkeys(limits.frontier.with_lm, 0),
        ),
        max_duration_s=msgspec.structs.replace(
            limits.max_duration_s, with_lm=limits.max_duration_s.without_lm if alone else 0
        ),
        max_batch=msgspec.structs.replace(limits.max_batch, with_lm=limits.max_batch.without_lm if alone else 0),
    )


def lm_refusal(card: Card, model: str, needed: int, room_bytes: int, instead: str | None) -> str:
    """Return the sentence about a language model that does not fit on its own card."""
    return (
        f"Language model {model} needs {gib(needed)} and {card.name} has room for {gib(room_bytes)};"
        f" {instead or 'none'} is used."
    )
