"""The bytes that a request needs of a card, those that the card has for it, and the longest song between them. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.clip import FRAMES_A_SECOND
from acestep.hardware.card import Card
from acestep.knobs import Backend, Knobs, Offload, Variant
from acestep.limits.capabilities import groups_attention, itemsize_of, matrix_workspace_of
from acestep.limits.fallbacks import moves_weights
from acestep.limits.guard import Demand, predict, resting_bytes
from acestep.limits.think_memory import lm_weight_bytes, think_bytes
from acestep.request import DEFAULT_DURATION_S, MAX_BATCH, MAX_DURATION_S, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.tiers import TierTable
from acestep.units import ceil_div

_LYRIC_HEADINGS: Final = 64
"""Tokens of a lyrics prompt besides the lyrics."""

_LENGTHS: Final = range(int(MAX_DURATION_S), 0, -60)
"""The song lengths that are tried, in seconds: whole minutes, as limits are published."""


def songs_room(card: Card, table: TierTable) -> int:
    """Return the bytes of a card that songs may take: what tiers of this size are certified with.

    0 for a card without memory of its own.
    """
    return table.room_bytes(card.nameplate_gib) if moves_weights(card) else 0


class MemoryQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the memory of a request whose songs are made one at a time: the inputs of a prediction.

    `thinks`: a language model plans the songs; `lm_itemsize` are the bytes of its numbers. `lm_apart`: it runs on
    another card.
    """

    demand: Demand
    thinks: bool
    lm_itemsize: int
    lm_apart: bool = False

    def lasting(self, seconds: float) -> "MemoryQuestion":
        """Return the same for songs of another length."""
        frames = round(seconds * FRAMES_A_SECOND)
        return msgspec.structs.replace(self, demand=msgspec.structs.replace(self.demand, frames=frames))

    def in_type_of(self, itemsize: int) -> "MemoryQuestion":
        """Return the same for songs made in numbers of that many bytes."""
        return msgspec.structs.replace(self, demand=msgspec.structs.replace(self.demand, itemsize=itemsize))


def question_of(
    request: Request | None,
    card: Card,
    variant: Variant,
    *,
    thinks: bool,
    lm_apart: bool = False,
    adapters: AdapterMemory = NO_ADAPTERS,
) -> MemoryQuestion:
    """Return what a request asks of a card, from above; without one, a song of the usual length with long lyrics.

    `adapters` are those that are not part of the weights.
    """
    lyrics, duration_s = MAX_LYRIC_TOKENS, DEFAULT_DURATION_S
    with_audio, weak, contexts = thinks, False, MAX_BATCH if thinks else 1
    if request is not None:
        # A byte-level tokenizer never makes more tokens than there are bytes.
        lyrics = min(MAX_LYRIC_TOKENS, _LYRIC_HEADINGS + len(request.lyrics.encode(errors="replace")))
        duration_s = min(request.duration_s or DEFAULT_DURATION_S, MAX_DURATION_S)
        own_codes = thinks and request.thinking.codes
        with_audio, weak = request.has_audio or own_codes, request.cover_strength < 1
        contexts = request.batch if own_codes else 1
    demand = Demand(
        songs=1,
        frames=round(duration_s * FRAMES_A_SECOND),
        lyric_tokens=lyrics,
        text_tokens=MAX_TEXT_TOKENS,
        with_audio=with_audio,
        weak_cover=weak,
        contexts=contexts,
        grouped_attention=groups_attention(card),
        matrix_workspace=matrix_workspace_of(card),
        itemsize=itemsize_of(card, variant),
        adapters=adapters,
    )
    return MemoryQuestion(demand=demand, thinks=thinks, lm_itemsize=itemsize_of(card), lm_apart=lm_apart)


def needed_bytes(model: Mapping[str, float], knobs: Knobs, question: MemoryQuestion) -> int | None:
    """Return the bytes that a request needs with its songs made one at a time; None if `model` lacks the knobs."""
    demand = question.demand
    stages = predict(model, knobs, demand)
    if not stages:
        return None
    thinks = question.thinks and knobs.lm is not None and not question.lm_apart
    stays = thinks and knobs.offload is Offload.NONE and knobs.backend is Backend.PT
    music = stages["total"] + (lm_weight_bytes(knobs, question.lm_itemsize) if stays else 0)
    if not thinks:
        return music
    resting = resting_bytes(model, knobs, demand)
    return max(music, resting + think_bytes(knobs, demand.frames / FRAMES_A_SECOND, question.lm_itemsize))


def longest_fitting(model: Mapping[str, float], knobs: Knobs, question: MemoryQuestion, room_bytes: int) -> int:
    """Return the longest song in whole seconds, made one at a time, that fits into `room_bytes`; 0 if none does.

    Whole minutes are tried, and the length that was asked for.
    """
    own = min(int(MAX_DURATION_S), ceil_div(question.demand.frames, FRAMES_A_SECOND))
    return next((seconds for seconds in _longest_first(own) if _fits(model, knobs, question, seconds, room_bytes)), 0)


def _longest_first(own: int) -> Iterable[int]:
    return sorted({*_LENGTHS, own} - {0}, reverse=True)


def _fits(model: Mapping[str, float], knobs: Knobs, question: MemoryQuestion, seconds: int, room_bytes: int) -> bool:
    needed = needed_bytes(model, knobs, question.lasting(seconds))
    return needed is not None and needed <= room_bytes
