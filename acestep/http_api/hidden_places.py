"""Where this machine has its files, which no answer tells."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

HiddenPlaces = Mapping[str, str]
"""Absolute paths of this machine, each with what an answer says instead."""

_FOLDERS: Final = re.compile(r"""(?<![\w.~:/\\])(?:[A-Za-z]:[/\\]|/|\\\\)(?:[^\s/\\:'",;()]+[/\\])+(?=[^\s/\\])""")
"""The folders of an absolute path in a sentence. A path with a space is found if it is one of the known places."""


def places_of(out: Path, model: str = "", adapters: Iterable[Path] = ()) -> HiddenPlaces:
    """Return the folder of the songs, that of the model if it is one, the adapters, and the user's own folder."""
    said = {Path.home(): "~", out: "the folder of the server"}
    said |= {path: path.absolute().name for path in (Path(model).expanduser(), *adapters)}
    spelled = {str(spelling): name for path, name in said.items() for spelling in (path, path.resolve())}
    return {path: name for path, name in spelled.items() if Path(path).is_absolute() and Path(path).name}


def without_places(text: str, places: HiddenPlaces) -> str:
    """Return a sentence with the names of files in place of their absolute paths, as text that JSON can hold."""
    for path in sorted(places, key=len, reverse=True):
        text = text.replace(path, places[path])
    return _FOLDERS.sub("", text).encode(errors="replace").decode()
