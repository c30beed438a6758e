"""The folders of songs: each has a mark, so that a later server can delete those that a killed one left behind."""

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from acestep.audio.write import open_folder
from acestep.serving.bounds import DAY_S

MARK: Final = ".acestep-serve"
"""The empty file in every folder of songs that a server made. Folders without it are never deleted."""


def open_song_folder(folder: Path) -> None:
    """Make a folder for the songs of one request, with the mark; raise as `open_folder` does."""
    open_folder(folder)
    # Without it the songs are made too, and only stay if the server is killed.
    with suppress(OSError):
        (folder / MARK).touch()


def delete_left_behind(out: Path, now: float | None = None) -> None:
    """Delete the folders in `out` that servers made and that have not changed for a day before `now`, a Unix time."""
    oldest = (time.time() if now is None else now) - DAY_S
    for folder in out.iterdir():
        with suppress(OSError):
            is_ours = (
                re.fullmatch("[0-9a-f]{32}", folder.name) and (folder / MARK).is_file() and not folder.is_symlink()
            )
            if is_ours and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
