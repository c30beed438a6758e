"""How a run tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a stage's name and how many of how many parts of it are done, first with 0; may raise to stop the run."""


Check = Callable[[], None]
"""Called between short pieces of one part, such as the tiles of a song; may raise to stop the run."""


def silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


def unchecked() -> None:
    """Nothing can stop the run here."""
