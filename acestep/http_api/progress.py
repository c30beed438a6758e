"""How far a request has come, as its document."""

from pathlib import Path

from acestep.http_api.documents import (
    RequestDocument,
    RequestState,
    ResultDocument,
    SongDocument,
    problem_from,
    result_of,
)
from acestep.http_api.hidden_places import HiddenPlaces
from acestep.http_api.queued_request import QueuedRequest


def document_of(queued: QueuedRequest, ahead: int, places: HiddenPlaces) -> RequestDocument:
    """Return the document of a request with `ahead` others before it, in which `places` are not told."""
    progress, failure = queued.visit.progress, queued.visit.failure
    state = RequestState(progress.stage) if progress.stage in tuple(RequestState) else RequestState.RUNNING
    is_running = state is RequestState.RUNNING
    return RequestDocument(
        id=queued.id,
        state=state,
        ahead=ahead,
        stage=progress.stage if is_running else None,
        done=progress.done if is_running else 0,
        total=progress.total if is_running else 0,
        seconds=progress.seconds,
        result=_result(queued) if state is RequestState.FINISHED else None,
        error=problem_from(failure, places) if failure and state is RequestState.FAILED else None,
    )


def _result(queued: QueuedRequest) -> ResultDocument | None:
    document = queued.document
    if document is None:
        return None
    songs = [
        SongDocument(
            url=f"/v1/requests/{queued.id}/songs/{number}",
            size_bytes=_size(Path(song["path"])),
            **{name: value for name, value in song.items() if name != "path"},
        )
        for number, song in enumerate(document["songs"], 1)
    ]
    return result_of(document, tuple(songs))


def _size(path: Path) -> int:
    """The size of a file, 0 if it was deleted."""
    return path.stat().st_size if path.exists() else 0
