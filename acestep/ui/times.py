"""How long songs take, as rows of the page's panel. Pure."""

from collections.abc import Iterator

from acestep.limits.song_time import ComparedChoice, PlannedTimes, TimeRange
from acestep.ui.words import PageText
from acestep.units import duration_range


def page_time_rows(times: PlannedTimes | None, words: PageText) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each length of song: without planning and with it, and how it was found; none without times."""
    if times is None:
        return
    kinds = dict.fromkeys((times.evidence, times.evidence_with_lm))
    found = ", ".join(words(f"evidence_{kind}") for kind in kinds)
    for song in times.songs:
        said = _said(song.without_lm, words)
        if song.with_lm is not None:
            said = words("without_and_with", without=said, with_lm=_said(song.with_lm, words))
        yield words("song_takes", duration=words.duration(song.duration_s)), said, found
    yield words("time_is_of"), ", ".join(times.cards), ""
    if faster := [_faster(choice, words) for choice in times.choices if choice.is_faster]:
        yield words("faster"), ", ".join(faster), found


def _faster(choice: ComparedChoice, words: PageText) -> str:
    named = (words.choice(value, of=knob) for knob, value in choice.knobs.items() if value is not None)
    return words("faster_choice", choice=" · ".join(named), times=f"{choice.times_as_long:g}")


def _said(time: TimeRange, words: PageText) -> str:
    return duration_range(
        time.least_s, time.most_s, words.duration, lambda least, most: words("time_range", least=least, most=most)
    )
