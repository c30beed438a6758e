"""HTML texts of the page: progress, warnings and the songs of a visit. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import msgspec

from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.evidence import Evidence, short_digest
from acestep.hardware.card import CONTEXT_BYTES, Card, card_line
from acestep.knobs import KNOBS
from acestep.limits.capabilities import groups_attention, itemsize_of, matrix_workspace_of
from acestep.limits.fallbacks import moves_weights
from acestep.limits.guard import Demand, knobs_key, predict, songs_at_once
from acestep.limits.plan import Plan, clamp
from acestep.limits.song_time import PlannedTimes
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.tiers import BATCHES, Tier
from acestep.ui.failures import FailedRun
from acestep.ui.sentences import SOURCE
from acestep.ui.sessions import RunProgress, VisitSong
from acestep.ui.settings import NONE
from acestep.ui.times import page_time_rows
from acestep.ui.words import PageText
from acestep.units import ceil_div, gib

SERVED = "gradio_api/file="
"""The path, relative to the page, from which gradio serves its cache."""

ENDED_STAGES = frozenset({"finished", "stopped", "failed"})


def progress_html(progress: RunProgress, words: PageText) -> str:
    """The progress of a run; "" before the first."""
    if not progress.stage:
        return ""
    said = words(f"stage_{progress.stage}", seconds=f"{progress.seconds:.1f}")
    percent = 100 if progress.stage == "finished" else round(100 * progress.share)
    share = "" if progress.stage in ENDED_STAGES or not progress.total else f"<span>{percent} %</span>"
    bar = f'<div class="bar"><div style="width:{percent}%"></div></div>'
    return f'<div class="progress {progress.stage}" role="status"><p>{escape(said)}{share}</p>{bar}</div>'


def failure_html(failure: FailedRun | None, words: PageText) -> str:
    """Why a run failed; screen readers announce it. "" without a failure."""
    if failure is None:
        return ""
    said = f"<p>{escape(words(f'failed_{failure.kind}'))}</p>"
    if failure.command:
        said += f"<p>{escape(words('failed_command'))}</p><pre><code>{escape(failure.command)}</code></pre>"
    if failure.detail:
        said += f'<p class="detail">{escape(words("failed_detail"))} {_sentence(failure.detail, words)}</p>'
    return f'<div class="failure" role="alert"><h3>{escape(words("error"))}</h3>{said}</div>'


def warnings_html(sentences: Sequence[str], words: PageText) -> str:
    """Warnings for a musician, each once; "" if there are none."""
    if not sentences:
        return ""
    items = "".join(f"<li>{_sentence(sentence, words)}</li>" for sentence in dict.fromkeys(sentences))
    return f'<div class="sentences"><h3>{escape(words("warnings"))}</h3><ul>{items}</ul></div>'


def _sentence(english: str, words: PageText) -> str:
    """A sentence of another room; it is marked as English where the page's language has no translation."""
    said = words.sentence(english)
    if said == english and words.language != SOURCE:
        return f'<span lang="{SOURCE}" dir="ltr">{escape(said)}</span>'
    return escape(said)


def history_html(made: Sequence[VisitSong], words: PageText) -> str:
    """The songs of a visit, the newest first, to play and to download."""
    if not made:
        return f'<p class="quiet">{escape(words("history_empty"))}</p>'
    items = "".join(_song(song, words) for song in made)
    return f'<div class="songs"><h3>{escape(words("history"))}</h3><ul>{items}</ul></div>'


def table_html(rows: Iterable[tuple[str, ...]]) -> str:
    """A table; the first cell of each row is a heading."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table>{body}</table>"


def served_at(path: Path) -> str:
    """The address of a file in gradio's cache, relative to the page."""
    return SERVED + quote(str(path))


def _song(song: VisitSong, words: PageText) -> str:
    address, name = escape(served_at(song.served)), escape(song.path.name)
    about = escape(f"{words.duration(song.duration_s)} · {song.seed}")
    return (
        f'<li><p>{escape(song.caption) or name}<span>{about}</span></p><div><audio controls preload="metadata"'
        f' src="{address}"></audio><a href="{address}" download="{name}" title="{name}">⤓</a></div></li>'
    )


def card_html(plan: Plan, device: Card, words: PageText, times: PlannedTimes | None = None) -> str:
    """The panel for a tier's own plan, which is carried out on `device`, and how long songs take there."""
    rows = [(words("card"), words.sentence(card_line(plan.card)), "")]
    if device != plan.card:
        rows.append((words("runs_on"), words.sentence(card_line(device)), ""))
    rows.append((words("tier"), f"{plan.tier} ({plan.label})", words("certified", size=plan.certified_gib)))
    if plan.limits_of != plan.tier:
        rows.append((words("limits_of"), plan.limits_of, ""))
    rows += [(words(name), value, evidence(plan, field, words)) for name, value, field in _defaults(plan, words)]
    rows += [
        (words("longest", batch=batch), _lengths(plan, batch, words), evidence(plan, "frontier", words))
        for batch in BATCHES
    ]
    rows += page_time_rows(times, words)
    return f'<div class="panel"><h3>{escape(words("section_card"))}</h3>{table_html(rows)}</div>'


def evidence(plan: Plan, field: str, words: PageText) -> str:
    """The source of a field's value, without a language model, and with one if that source differs."""
    found = dict.fromkeys(
        _source(plan.evidence[name], words) for name in (field, f"{field}.with_lm") if name in plan.evidence
    )
    return ", ".join(found)


def _defaults(plan: Plan, words: PageText) -> tuple[tuple[str, str, str], ...]:
    on_off = {True: words("on"), False: words("off")}
    none = words(f"choice_{NONE}")
    decided = {name: getattr(plan, name) for name in KNOBS if name in Tier.__struct_fields__}
    return (
        ("lm", plan.lm or none, "recommended_lm"),
        ("lm_models", ", ".join(plan.lm_models) or none, "lm_models"),
        ("init_lm", on_off[plan.init_lm], "init_lm"),
        *(
            (name, on_off[value] if isinstance(value, bool) else value or words.choice(NONE, of=name), name)
            for name, value in decided.items()
        ),
    )


def _lengths(plan: Plan, batch: int, words: PageText) -> str:
    longest = [plan.longest(batch, lm=lm) for lm in (False, True)]
    said = [words.duration(seconds) if seconds else words(f"choice_{NONE}") for seconds in longest]
    return said[0] if said[0] == said[1] else words("without_and_with", without=said[0], with_lm=said[1])


def _source(source: Evidence, words: PageText) -> str:
    digest = short_digest(source.record).removeprefix("sha256:")
    return " ".join(part for part in (words(f"evidence_{source.kind}"), digest) if part)


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
) -> Outlook:
    """Return the guard's prediction for a request of words only, after `clamp` has reduced it to the plan.

    `brings_audio` says that there are audio files too, `weak_cover` that they are followed only partly.
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
