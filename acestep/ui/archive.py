"""All songs of a visitor in one file, which is served: one for each visitor; those of a day ago are deleted."""

import os
import shutil
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from gradio.utils import get_upload_folder

from acestep.serving.bounds import DAY_S
from acestep.serving.visits import Visit
from acestep.ui.served import served_folder

ARCHIVE: Final = "acestep-songs.zip"

_KIND: Final = "zip"


def pack_songs(visit: Visit) -> Path | None:
    """Return the file with the songs of a visit, in place of an earlier one; None if there are no songs."""
    _delete_old()
    there = [song for song in visit.made if song.path.exists()]
    if not there:
        return None
    folder = served_folder(_KIND, visit.folder)
    folder.mkdir(exist_ok=True, parents=True)
    # Under another name until it is complete: the earlier one may be on its way to the visitor.
    descriptor, name = tempfile.mkstemp(dir=folder)
    part = Path(name)
    try:
        # Sound is compressed already, or was asked for without.
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for song in there:
                archive.write(song.path, song.path.name)
        return part.replace(folder / ARCHIVE)
    finally:
        part.unlink(missing_ok=True)


def forget_packed(visit: Visit) -> None:
    """Delete what was packed for a visit."""
    # On Windows a file that is on its way stays; it is deleted as an old one.
    with suppress(OSError):
        (served_folder(_KIND, visit.folder) / ARCHIVE).unlink(missing_ok=True)


def _delete_old() -> None:
    """Delete what was packed more than a day ago."""
    for folder in Path(get_upload_folder()).glob(f"{_KIND}-*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > DAY_S:
                shutil.rmtree(folder)
