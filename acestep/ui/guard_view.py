"""What the VRAM guard would do with the request on the page, in words. Pure."""

from collections.abc import Mapping
from html import escape

import msgspec

from acestep.capabilities import groups_attention, itemsize_of, matrix_workspace_of
from acestep.fallbacks import moves_weights
from acestep.hardware import CONTEXT_BYTES
from acestep.memory.guard import Demand, knobs_key, predict, songs_at_once
from acestep.models.prompts import lyric_prompt, text_prompt
from acestep.plan import Plan, clamp
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.ui.views import table_html
from acestep.ui.words import Words
from acestep.units import gib


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard knows: songs asked for and made at once, bytes that each stage needs and bytes there are for them.

    `free_bytes` of 0 says that nothing was looked at, and the whole card was counted on. `needs` are empty where the
    table predicts nothing for the knobs. `cuts` say what is beyond the plan's limits and left out.
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
) -> Outlook:
    """The guard's view of a request for words alone, once `clamp` has cut it to the plan.

    `brings_audio` says that there are files besides, `weak_cover` that they are followed only partly.
    """
    thinks = request.thinks and plan.lm is not None
    clamped, cuts = clamp(request, plan, lm=thinks)
    if not clamped.duration_s:
        # The language model chooses: the guard is asked afterwards, so the longest it may choose is what to expect.
        clamped = msgspec.structs.replace(clamped, duration_s=float(clamped.thinking.longest_s))
    own_codes = thinks and clamped.thinking.codes
    demand = Demand(
        songs=clamped.batch,
        frames=clamped.latent_frames,
        # No tokenizer of bytes makes more tokens than there are bytes.
        lyric_tokens=min(MAX_LYRIC_TOKENS, len(lyric_prompt(clamped).encode())),
        text_tokens=min(MAX_TEXT_TOKENS, len(text_prompt(clamped).encode())),
        with_audio=brings_audio or own_codes,
        weak_cover=weak_cover,
        contexts=clamped.batch if own_codes else 1,
        grouped_attention=groups_attention(plan.card),
        matrix_workspace=matrix_workspace_of(plan.card),
        itemsize=itemsize_of(plan.card),
    )
    needs = predict(model, plan.knobs, demand)
    resting = demand.width * int(model[f"{knobs_key(plan.knobs)}.rest"]) if needs else 0
    free = free_bytes or max(0, plan.card.total_bytes - CONTEXT_BYTES - resting)
    return Outlook(
        songs=demand.songs,
        at_once=songs_at_once(model, plan.knobs, demand, free),
        needs=needs,
        room_bytes=free + resting,
        free_bytes=free_bytes,
        cuts=cuts,
    )


def guard_html(plan: Plan, seen: Outlook, words: Words) -> str:
    """The panel: one sentence, and what each stage needs."""
    if not moves_weights(plan.card):
        return panel_html(words, words("guard_host"))
    if not seen.needs:
        return panel_html(words, words("guard_unknown"))
    counted = words("guard_free", free=gib(seen.free_bytes)) if seen.free_bytes else words("guard_whole")
    rows = [(words(f"stage_{stage}"), gib(needed)) for stage, needed in seen.needs.items() if stage != "total"]
    table = table_html((*rows, (words("guard_room"), gib(seen.room_bytes))))
    return panel_html(words, " ".join((*seen.cuts, _verdict(seen, words), counted)), table)


def _verdict(seen: Outlook, words: Words) -> str:
    total, room = seen.needs["total"], seen.room_bytes
    if seen.at_once < seen.songs:
        passes = -(-seen.songs // seen.at_once)
        return words(
            "guard_passes", songs=seen.songs, need=gib(total), room=gib(room), at_once=seen.at_once, passes=passes
        )
    if total > room:
        return words("guard_over", need=gib(total), room=gib(room))
    return words("guard_one" if seen.songs == 1 else "guard_all", songs=seen.songs, need=gib(total), room=gib(room))


def panel_html(words: Words, sentence: str, table: str = "") -> str:
    """The guard's panel with a sentence, and a table where there is one."""
    return f'<div class="panel"><h3>{escape(words("section_guard"))}</h3><p>{escape(sentence)}</p>{table}</div>'
