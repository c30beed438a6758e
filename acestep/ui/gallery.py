"""The songs of the visitors, as the files in their folders say: so they survive a reload, and the program's end."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from gradio.processing_utils import hash_file, save_file_to_cache

from acestep.audio.comments import comment_in
from acestep.audio.outline import outline
from acestep.audio.read import said_seconds
from acestep.audio.write import FILE_FORMATS
from acestep.errors import InvalidInputError
from acestep.serving.visits import Visit, VisitSong
from acestep.song_settings import SongSettings, settings_in
from acestep.ui.served import served_folder

MOST_LISTED: Final = 24
"""Songs of a folder that are listed, the newest; the others stay in the folder."""

_MOST_REMEMBERED: Final = 2_000
"""Songs of all visitors whose outlines and times are remembered."""

_NAME: Final = re.compile(r"[0-9a-f]{32}")
"""The name of a visitor's folder, which cannot be guessed."""

_SUFFIXES: Final = frozenset(f".{form.suffix}" for form in FILE_FORMATS.values())


class Gallery:
    """What is known about the songs, and how their files are served."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, VisitSong] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, path: Path) -> Path:
        """Bring a song to gradio's cache, to its visitor's folder there: only the cache is served.

        Equal songs of two visitors have a copy each. On one file system a copy takes no space.
        """
        cache = served_folder("songs", path.parent)
        place: Path = cache / hash_file(path) / path.name
        if not place.exists():
            try:
                place.parent.mkdir(exist_ok=True, parents=True)
                os.link(path, place)
            except OSError:
                place = Path(save_file_to_cache(path, cache_dir=str(cache)))
        return place

    def describe(self, songs: Sequence[VisitSong], seconds: float | None = None) -> list[VisitSong]:
        """Return songs with what their files say about them, and with the seconds that their run took."""
        return [self._remember(_described(song, seconds)) for song in songs]

    def come_back(self, visit: Visit, name: str) -> None:
        """Give a visit the folder of an earlier visit of the same browser, and list its songs.

        A `name` that is not one of a folder is ignored: a browser may send anything.
        """
        if not _NAME.fullmatch(name) or visit.busy:
            return
        visit.folder = visit.folder.parent / name
        visit.made = self._in_folder(visit.folder)

    def delete(self, visit: Visit, name: str) -> None:
        """Delete a song of a visit, its file and what is served of it; nothing if the visit has no such song."""
        for song in [song for song in visit.made if song.path.name == name]:
            for path in (song.path, song.served):
                path.unlink(missing_ok=True)
            visit.made = [other for other in visit.made if other is not song]
            with self._lock:
                self._known.pop(song.path, None)

    def _in_folder(self, folder: Path) -> list[VisitSong]:
        """The newest songs of a folder; those of a batch are in the order of their seeds."""
        files = [path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file()]
        newest = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:MOST_LISTED]
        return in_batches([self._of_file(path) for path in newest])

    def _of_file(self, path: Path) -> VisitSong:
        with self._lock:
            known = self._known.get(path)
        if known is not None and known.served.exists():
            return known
        settings = _settings_of(path)
        bare = VisitSong(
            path=path,
            served=self.keep(path),
            caption=settings.request.caption if settings else path.stem,
            seed=settings.request.seed if settings else 0,
            duration_s=said_seconds(path),
        )
        return self._remember(_described(bare, known.seconds if known else None))

    def _remember(self, song: VisitSong) -> VisitSong:
        with self._lock:
            self._known[song.path] = song
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return song


def in_batches(newest_first: Sequence[VisitSong]) -> list[VisitSong]:
    """Return songs with those of a batch in the order of their seeds: they were written in that order."""
    batches: list[list[VisitSong]] = []
    for song in newest_first:
        if batches and _is_next(song, batches[-1][0]):
            batches[-1].insert(0, song)
        else:
            batches.append([song])
    return [song for batch in batches for song in batch]


def _is_next(song: VisitSong, other: VisitSong) -> bool:
    """Whether two songs are neighbours of one batch: asked for alike, and the seed of the other is one more."""
    if song.settings is None or other.settings is None or song.seed + 1 != other.seed:
        return False
    request = msgspec.structs.replace(song.settings.request, seed=other.seed)
    return msgspec.structs.replace(song.settings, request=request) == other.settings


def _described(song: VisitSong, seconds: float | None) -> VisitSong:
    return msgspec.structs.replace(song, settings=_settings_of(song.path), seconds=seconds, outline=outline(song.path))


def _settings_of(path: Path) -> SongSettings | None:
    try:
        return settings_in(comment_in(path), path.name)
    except InvalidInputError:
        return None
