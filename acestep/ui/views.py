"""HTML texts of the page: progress, failures, warnings and the card's panel. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby

from acestep.evidence import Evidence, short_digest
from acestep.hardware.card import Card, card_line
from acestep.knobs import KNOBS
from acestep.limits.plan import Plan
from acestep.limits.song_time import PlannedTimes
from acestep.serving.failures import FailedRun
from acestep.serving.visits import WAITING, RunProgress
from acestep.stage import Stage
from acestep.tiers import BATCHES, Tier
from acestep.ui.sentences import SOURCE
from acestep.ui.settings import NONE
from acestep.ui.times import page_time_rows
from acestep.ui.words import PageText

ENDED_STAGES = frozenset({"finished", "stopped", "failed"})

TIMED_STAGES = frozenset({Stage.THINK, Stage.DENOISE, Stage.DECODE})
"""The stages that take long, of many equal parts."""


def progress_html(progress: RunProgress, words: PageText, place: int = 0) -> str:
    """The progress of a run, and the `place` of one that waits (0: unknown); "" before the first."""
    if not progress.stage:
        return ""
    said = words(f"stage_{progress.stage}", seconds=f"{progress.seconds:.1f}")
    percent = 100 if progress.stage == "finished" else round(100 * progress.share)
    share = "" if progress.stage in ENDED_STAGES or not progress.total else f"<span>{percent} %</span>"
    bar = f'<div class="bar"><div style="width:{percent}%"></div></div>'
    more = "".join(f"<span>{escape(detail)}</span>" for detail in _details(progress, words, place))
    details = f'<p class="details">{more}</p>' if more else ""
    # Screen readers announce the stage, and not each step of it.
    stage = f'<span role="status">{escape(said)}</span>'
    return f'<div class="progress {progress.stage}"><p>{stage}{share}</p>{bar}{details}</div>'


def _details(progress: RunProgress, words: PageText, place: int) -> list[str]:
    if progress.stage == WAITING:
        return [words("progress_next") if place == 1 else words("progress_place", place=place)] if place else []
    details = []
    if progress.stage == Stage.DENOISE and progress.total > 1:
        details.append(words("progress_step", done=progress.done, total=progress.total))
    if progress.of_songs > 1 and progress.stage not in ENDED_STAGES:
        details.append(words("progress_songs", done=progress.songs, total=progress.of_songs))
    if progress.left_s is not None and progress.stage in TIMED_STAGES:
        details.append(words("progress_left", time=words.duration(max(1, round(progress.left_s)))))
    return details


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


def warnings_html(sentences: Sequence[str], words: PageText, *, own: Sequence[str] = ()) -> str:
    """Warnings for a musician, each once; "" if there are none. Those of the page's `own` are in its language."""
    shown = [_sentence(sentence, words) for sentence in dict.fromkeys(sentences)]
    items = "".join(f"<li>{sentence}</li>" for sentence in (*map(escape, own), *shown))
    return f'<div class="sentences"><h3>{escape(words("warnings"))}</h3><ul>{items}</ul></div>' if items else ""


def _sentence(english: str, words: PageText) -> str:
    """A sentence of another room; it is marked as English where the page's language has no translation."""
    said = words.sentence(english)
    if said == english and words.language != SOURCE:
        return f'<span lang="{SOURCE}" dir="ltr">{escape(said)}</span>'
    return escape(said)


def notify_html(words: PageText) -> str:
    """The box for a notification at the end of a run, and a place for why there cannot be one."""
    return f'<label><input type="checkbox"> {escape(words("notify"))}</label> <span role="status"></span>'


def table_html(rows: Iterable[tuple[str, ...]]) -> str:
    """A table; the first cell of each row is a heading."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table>{body}</table>"


def card_html(plan: Plan, device: Card, words: PageText, times: PlannedTimes | None = None) -> str:
    """The panel for a tier's own plan, which is carried out on `device`, and how long songs take there."""
    rows = [(words("card"), words.sentence(card_line(plan.card)), "")]
    if device != plan.card:
        rows.append((words("runs_on"), words.sentence(card_line(device)), ""))
    rows.append((words("tier"), f"{plan.tier} ({plan.label})", words("certified", size=plan.certified_gib)))
    if plan.limits_of != plan.tier:
        rows.append((words("limits_of"), plan.limits_of, ""))
    found = [*_defaults(plan, words), *_longest(plan, words)]
    rows += [(name, value, evidence(plan, field, words)) for name, value, field in found]
    rows += page_time_rows(times, words)
    records = table_html((name, evidence(plan, field, words, records=True)) for name, _, field in found)
    return (
        f'<div class="panel"><h3>{escape(words("section_card"))}</h3>{table_html(rows)}'
        f"<details><summary>{escape(words('evidence'))}</summary>{records}</details></div>"
    )


def evidence(plan: Plan, field: str, words: PageText, *, records: bool = False) -> str:
    """What a field's value rests on, without a language model, and with one if that differs; `records` names them."""
    found = dict.fromkeys(
        _source(plan.evidence[name], words, record=records)
        for name in (field, f"{field}.with_lm")
        if name in plan.evidence
    )
    return ", ".join(found)


def _defaults(plan: Plan, words: PageText) -> tuple[tuple[str, str, str], ...]:
    on_off = {True: words("on"), False: words("off")}
    none = words(f"choice_{NONE}")
    decided = {name: getattr(plan, name) for name in KNOBS if name in Tier.__struct_fields__}
    return (
        (words("lm"), plan.lm or none, "recommended_lm"),
        (words("lm_models"), ", ".join(plan.lm_models) or none, "lm_models"),
        (words("init_lm"), on_off[plan.init_lm], "init_lm"),
        *(
            (words(name), on_off[value] if isinstance(value, bool) else value or words.choice(NONE, of=name), name)
            for name, value in decided.items()
        ),
    )


def _longest(plan: Plan, words: PageText) -> Iterator[tuple[str, str, str]]:
    """Yield the longest songs, with one row for neighbouring batches that have the same."""
    for length, batches in groupby(BATCHES, lambda batch: _lengths(plan, batch, words)):
        least, *others = batches
        yield words("longest", batch=f"{least}–{others[-1]}" if others else least), length, "frontier"


def _lengths(plan: Plan, batch: int, words: PageText) -> str:
    longest = [plan.longest(batch, lm=lm) for lm in (False, True)]
    said = [words.duration(seconds) if seconds else words(f"choice_{NONE}") for seconds in longest]
    return said[0] if said[0] == said[1] else words("without_and_with", without=said[0], with_lm=said[1])


def _source(source: Evidence, words: PageText, *, record: bool) -> str:
    digest = short_digest(source.record).removeprefix("sha256:") if record else ""
    return " ".join(part for part in (words(f"evidence_{source.kind}"), digest) if part)
