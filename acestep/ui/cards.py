"""HTML of the songs and of the examples: a card for each song. Pure."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from acestep.audio.outline import BARS
from acestep.serving.visits import VisitSong
from acestep.ui.words import PageText

SERVED: Final = "gradio_api/file="
"""The path, relative to the page, from which gradio serves its cache."""

_BAR, _HEIGHT = 3, 40
"""The distance of the bars of an outline, and its height."""


def songs_html(made: Sequence[VisitSong], words: PageText) -> str:
    """The songs of a visit, the newest first, to play, to download and to start from."""
    if not made:
        return f'<p class="quiet">{escape(words("history_empty"))}</p>'
    together = f'<button type="button" data-act="zip">{escape(words("download_all"))}</button>' if len(made) > 1 else ""
    cards = "".join(_card(number, song, words) for number, song in enumerate(made))
    return f'<div class="songs"><header><h2>{escape(words("history"))}</h2>{together}</header><div>{cards}</div></div>'


def examples_html(titles: Sequence[tuple[str, str]], words: PageText) -> str:
    """A button for each example, from pairs of its name and its title."""
    chips = "".join(
        f'<button type="button" data-act="example" data-name="{escape(name)}">{escape(title)}</button>'
        for name, title in titles
    )
    return f'<div class="chips"><span>{escape(words("examples"))}</span>{chips}</div>'


def link_html(path: Path | None) -> str:
    """A link that downloads a served file; "" for None."""
    if path is None:
        return ""
    return f'<a href="{escape(served_at(path))}" download="{escape(path.name)}">{escape(path.name)}</a>'


def served_at(path: Path) -> str:
    """The address of a file in gradio's cache, relative to the page."""
    return SERVED + quote(str(path))


def _card(number: int, song: VisitSong, words: PageText) -> str:
    title, name, address = (escape(text) for text in (_title(song), song.path.name, served_at(song.served)))
    whole = escape(_clock(song.duration_s))
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in _facts(song, words))
    return (
        f'<div class="song" id="song-{number}" role="group" aria-label="{title}" data-name="{name}"'
        f' data-address="{address}"><h3>{title}</h3><div class="player">'
        f'<button type="button" class="play" data-act="play" aria-label="{escape(words("play"))}"></button>'
        f'<div class="outline" style="{_mask(song.outline)}"><div></div>'
        f'<input type="range" min="0" max="1000" value="0" aria-label="{escape(words("position"))}"></div>'
        f'<span class="clock"><span class="at">0:00</span> / <span class="whole">{whole}</span></span></div>'
        f'<p class="facts">{facts}</p><div class="acts">'
        f'<a href="{address}" download="{name}">{escape(words("download"))}</a>{_acts(song, words)}</div></div>'
    )


def _title(song: VisitSong) -> str:
    return song.caption.strip() or song.path.name


def _acts(song: VisitSong, words: PageText) -> str:
    """What can be done with a song; one whose file does not say how it was made cannot be asked for again."""
    able = ("use", "another", "delete") if song.settings is not None else ("delete",)
    return "".join(f'<button type="button" data-act="{act}">{escape(words(f"act_{act}"))}</button>' for act in able)


def _facts(song: VisitSong, words: PageText) -> list[str]:
    facts = [words("fact_seed", seed=song.seed), words.duration(song.duration_s)]
    if song.settings is not None:
        lm = getattr(song.settings.knobs, "lm", None) if song.settings.request.think else None
        facts.append(" + ".join(name for name in (song.settings.model or str(song.settings.variant), lm) if name))
    if song.seconds is not None:
        facts.append(words("fact_made_in", time=words.duration(song.seconds)))
    return facts


def _clock(seconds: float) -> str:
    """Minutes and seconds, as a player shows them."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))


def _mask(outline: Sequence[int]) -> str:
    """The style that shows a song's outline; a line where it is not known."""
    levels = outline or (0,) * BARS
    bars = "".join(
        f"M{_BAR * bar} {_HEIGHT / 2 - half:g}v{2 * half:g}"
        for bar, half in enumerate(max(1.0, level * _HEIGHT / 200) for level in levels)
    )
    picture = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='-1 0 {_BAR * len(levels)} {_HEIGHT}'"
        f" preserveAspectRatio='none'><path d='{bars}' stroke='#000' stroke-width='2'/></svg>"
    )
    address = quote(picture, safe=" ='/:")
    return f"--outline: url(&quot;data:image/svg+xml,{address}&quot;)"
