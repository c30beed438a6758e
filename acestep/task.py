"""The tasks of the DiT."""

from enum import StrEnum


class Task(StrEnum):
    """The task of the DiT."""

    TEXT2MUSIC = "text2music"
    REPAINT = "repaint"
    COVER = "cover"
    EXTRACT = "extract"
    LEGO = "lego"
    COMPLETE = "complete"


BASE_TASKS = frozenset({Task.EXTRACT, Task.LEGO, Task.COMPLETE})
"""Tasks that only the base variants were trained for."""

SOURCED = frozenset(Task) - {Task.TEXT2MUSIC}
WINDOWED = frozenset({Task.REPAINT, Task.LEGO})
OF_ONE_TRACK = frozenset({Task.EXTRACT, Task.LEGO})
"""Tasks that work on a song that exists, that generate only a part of it, and that are about one track."""

REPAINT_STRENGTH = 0.5
REPAINT_FADE_S = 0.025
"""How freely a window is generated, and the seconds over which its sound and the source's are mixed, by default."""
