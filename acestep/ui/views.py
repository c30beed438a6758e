"""What the page shows as text of its own: progress, warnings and the songs of a visit, as HTML. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from acestep.ui.failures import Failure
from acestep.ui.sessions import Made, Progress
from acestep.ui.words import Words

SERVED = "gradio_api/file="
"""Where gradio serves a file of its cache from, below the page's own address."""

OVER = frozenset({"finished", "stopped", "failed"})


def progress_html(progress: Progress, words: Words) -> str:
    """How far a run is; nothing before the first."""
    if not progress.stage:
        return ""
    said = words(f"stage_{progress.stage}", seconds=f"{progress.seconds:.1f}")
    percent = 100 if progress.stage == "finished" else round(100 * progress.share)
    share = "" if progress.stage in OVER or not progress.total else f"<span>{percent} %</span>"
    bar = f'<div class="bar"><div style="width:{percent}%"></div></div>'
    return f'<div class="progress {progress.stage}" role="status"><p>{escape(said)}{share}</p>{bar}</div>'


def failure_html(failure: Failure | None, words: Words) -> str:
    """Why a run failed, read out by screen readers as it appears; nothing where none did."""
    if failure is None:
        return ""
    said = f"<p>{escape(words(f'failed_{failure.kind}'))}</p>"
    if failure.command:
        said += f"<p>{escape(words('failed_command'))}</p><pre><code>{escape(failure.command)}</code></pre>"
    if failure.detail:
        detail = escape(failure.detail)
        said += f'<p class="detail">{escape(words("failed_detail"))} <span lang="en" dir="ltr">{detail}</span></p>'
    return f'<div class="failure" role="alert"><h3>{escape(words("error"))}</h3>{said}</div>'


def warnings_html(sentences: Sequence[str], words: Words) -> str:
    """Sentences for a musician, each once; nothing where there are none."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in dict.fromkeys(sentences))
    return f'<div class="sentences"><h3>{escape(words("warnings"))}</h3><ul>{items}</ul></div>'


def history_html(made: Sequence[Made], words: Words) -> str:
    """The songs of a visit, the newest first, to hear and to take along."""
    if not made:
        return f'<p class="quiet">{escape(words("history_empty"))}</p>'
    items = "".join(_song(song, words) for song in made)
    return f'<div class="songs"><h3>{escape(words("history"))}</h3><ul>{items}</ul></div>'


def table_html(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows of cells, the first of each a heading."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table>{body}</table>"


def served_at(path: Path) -> str:
    """The address of a file in gradio's cache, relative to the page."""
    return SERVED + quote(str(path))


def length(seconds: float, words: Words) -> str:
    """A song's length as a musician says it."""
    whole, rest = divmod(round(seconds, 1), 60)
    parts = [words("minutes", count=f"{whole:g}")] if whole else []
    return " ".join(parts + ([words("seconds", count=f"{rest:g}")] if rest or not whole else []))


def _song(song: Made, words: Words) -> str:
    address, name = escape(served_at(song.served)), escape(song.path.name)
    about = escape(f"{length(song.duration_s, words)} · {song.seed}")
    return (
        f'<li><p>{escape(song.caption) or name}<span>{about}</span></p><div><audio controls preload="metadata"'
        f' src="{address}"></audio><a href="{address}" download="{name}" title="{name}">⤓</a></div></li>'
    )
