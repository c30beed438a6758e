"""What the VRAM guard would do with the request on the form, and the panel that says so. Pure."""

from collections.abc import Mapping
from html import escape

import msgspec

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.hardware.card import CONTEXT_BYTES
from acestep.knobs import Backend, Offload
from acestep.limits.capabilities import groups_attention, itemsize_of, matrix_workspace_of
from acestep.limits.fallbacks import moves_weights
from acestep.limits.guard import Demand, predict, resting_bytes, songs_at_once
from acestep.limits.plan import Plan, clamp
from acestep.limits.think_memory import lm_weight_bytes, think_bytes
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.stage import Stage
from acestep.ui.views import table_html
from acestep.ui.words import PageText
from acestep.units import ceil_div, gib


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The guard's prediction: songs requested and songs in a pass, bytes needed by each stage and bytes available.

    `free_bytes` of 0 says that free memory was not read and the whole card was assumed. `needs` are empty if the table
    has no prediction for the knobs. `cuts` say what is above the plan's limits and left out.
    """

    songs: int
    at_once: int
    needs: dict[str, int]
    room_bytes: int
    free_bytes: int = 0
    cuts: tuple[str, ...] = ()


def outlook(
    plan: Plan,
    model: Mapping[str, float],
    request: Request,
    *,
    brings_audio: bool = False,
    weak_cover: bool = False,
    free_bytes: int = 0,
    held_bytes: int | None = None,
    adapters: AdapterMemory = NO_ADAPTERS,
) -> Outlook:
    """Return the guard's prediction for a request of words only, after `clamp` has reduced it to the plan.

    `brings_audio` says that there are audio files too, `weak_cover` that they are followed only partly. `held_bytes`
    are those of the weights that are on the card besides the free ones; None for what the plan keeps there. `adapters`
    are those that are not part of the weights.
    """
    thinks = request.thinks and plan.lm is not None
    clamped, cuts = clamp(request, plan, lm=thinks)
    if not clamped.duration_s:
        # The language model chooses the length before the guard is asked, so the longest one it may choose is assumed.
        clamped = msgspec.structs.replace(clamped, duration_s=float(clamped.thinking.longest_s))
    own_codes = thinks and clamped.thinking.codes
    demand = Demand(
        songs=clamped.batch,
        frames=clamped.latent_frames,
        # A byte-level tokenizer never makes more tokens than there are bytes.
        lyric_tokens=min(MAX_LYRIC_TOKENS, len(lyric_prompt(clamped).encode())),
        text_tokens=min(MAX_TEXT_TOKENS, len(text_prompt(clamped).encode())),
        with_audio=brings_audio or own_codes,
        weak_cover=weak_cover,
        contexts=clamped.batch if own_codes else 1,
        grouped_attention=groups_attention(plan.card),
        matrix_workspace=matrix_workspace_of(plan.card),
        itemsize=itemsize_of(plan.card, plan.variant),
        adapters=adapters,
    )
    needs = predict(model, plan.knobs, demand)
    resting = resting_bytes(model, plan.knobs, demand) if needs else 0
    stays = 0
    if needs and thinks and plan.lm_card is None:
        stays = _lm_staying(plan)
        needs = _with_thinking(needs, plan, resting, stays, clamped.duration_s)
    room = free_bytes + (resting if held_bytes is None else held_bytes)
    if not free_bytes:
        room = max(resting, plan.card.total_bytes - CONTEXT_BYTES)
    return Outlook(
        songs=demand.songs,
        at_once=songs_at_once(model, plan.knobs, demand, room - stays - resting),
        needs=needs,
        room_bytes=room,
        free_bytes=free_bytes,
        cuts=cuts,
    )


def _lm_staying(plan: Plan) -> int:
    """Bytes of the language model that stay on the card while the songs are made (`acestep.limits.room`)."""
    stays = plan.offload is Offload.NONE and plan.backend is Backend.PT
    return lm_weight_bytes(plan.knobs, itemsize_of(plan.card)) if stays else 0


def _with_thinking(needs: dict[str, int], plan: Plan, resting: int, stays: int, duration_s: float) -> dict[str, int]:
    """Return the needs with that of thinking, and with what stays of the language model in the other stages."""
    thinking = resting + think_bytes(plan.knobs, duration_s, itemsize_of(plan.card))
    stages = {stage: needed + stays for stage, needed in needs.items() if stage != "total"}
    return {Stage.THINK: thinking, **stages, "total": max(thinking, *stages.values())}


def guard_html(plan: Plan, seen: Outlook, words: PageText) -> str:
    """The panel: one sentence, and the need of each stage."""
    if not moves_weights(plan.card):
        return panel_html(words, words("guard_host"))
    if not seen.needs:
        return panel_html(words, words("guard_unknown"))
    counted = words("guard_free", free=gib(seen.free_bytes)) if seen.free_bytes else words("guard_whole")
    rows = [(words(f"stage_{stage}"), gib(needed)) for stage, needed in seen.needs.items() if stage != "total"]
    table = table_html((*rows, (words("guard_room"), gib(seen.room_bytes))))
    return panel_html(words, " ".join((*seen.cuts, _verdict(seen, words), counted)), table)


def _verdict(seen: Outlook, words: PageText) -> str:
    total, room = seen.needs["total"], seen.room_bytes
    if seen.at_once < seen.songs:
        passes = ceil_div(seen.songs, seen.at_once)
        return words(
            "guard_passes", songs=seen.songs, need=gib(total), room=gib(room), at_once=seen.at_once, passes=passes
        )
    if total > room:
        return words("guard_over", need=gib(total), room=gib(room))
    return words("guard_one" if seen.songs == 1 else "guard_all", songs=seen.songs, need=gib(total), room=gib(room))


def panel_html(words: PageText, sentence: str, table: str = "") -> str:
    """The guard's panel with a sentence, and a table if there is one."""
    return f'<div class="panel"><h3>{escape(words("section_guard"))}</h3><p>{escape(sentence)}</p>{table}</div>'
