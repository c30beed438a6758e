"""A request in the queue."""

import shutil
from pathlib import Path
from typing import Any, Final

from acestep.http_api.body import SongsAsked
from acestep.serving.visits import Visit

FORGOTTEN: Final = SongsAsked(caption="")
"""In place of what a request asked that has ended: texts can be long, and are needed no more."""


class QueuedRequest:
    """A request, the client that sent it, and the visit whose progress and folder it uses; its id cannot be guessed.

    What was `asked` is forgotten when it has ended, and the uploads of its `own` are deleted.
    """

    def __init__(
        self, asked: SongsAsked, client: str, visit: Visit, recordings: dict[str, Path], own: tuple[str, ...]
    ) -> None:
        self.asked = asked
        self.client = client
        self.visit = visit
        self.recordings = recordings
        self.own = own
        self.document: dict[str, Any] | None = None
        self.ended_at: float | None = None
        self.is_removed = False

    @property
    def id(self) -> str:
        """The name of the request and of its folder."""
        return self.visit.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of its songs, in the order of their seeds."""
        return tuple(Path(song["path"]) for song in (self.document or {}).get("songs", ()))

    @property
    def size_bytes(self) -> int:
        """The size of these files."""
        return sum(path.stat().st_size for path in self.files if path.exists())

    def end(self, now: float) -> None:
        """Note that it has ended, and forget what is needed no more."""
        self.asked = FORGOTTEN
        self.ended_at = now

    def delete_files(self) -> None:
        """Delete its songs."""
        shutil.rmtree(self.visit.folder, ignore_errors=True)
