"""The fields of a song's metadata and the values each may take, in the order of training."""

from enum import StrEnum


class Field(StrEnum):
    """One line of the thinking, in the order the lines come."""

    BPM = "bpm"
    CAPTION = "caption"
    DURATION = "duration"
    KEYSCALE = "keyscale"
    LANGUAGE = "language"
    TIMESIGNATURE = "timesignature"


BPMS = range(30, 301)

SHORTEST_PLAN_S = 10
LONGEST_PLAN_S = 600
"""The lengths a model was trained to plan, in seconds."""

DURATIONS_S = range(1, LONGEST_PLAN_S + 1)
"""The lengths a person may name, in seconds."""

KEYSCALES = tuple(
    f"{note}{accidental} {mode}"
    for note in "ABCDEFG"
    for accidental in ("", "#", "b", "♯", "♭")
    for mode in ("major", "minor")
)

TIMESIGNATURES = ("2", "3", "4", "6")

_LANGUAGES = """
ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru
sa sk sr sv sw ta te th tl tr uk ur vi yue zh
"""
UNKNOWN_LANGUAGE = "unknown"
LANGUAGES = (*_LANGUAGES.split(), UNKNOWN_LANGUAGE)
