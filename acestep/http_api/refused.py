"""What the server refuses, as an exception that becomes its answer."""

from collections.abc import Mapping

from acestep.http_api.documents import ErrorAnswer, ErrorKind


class RefusedError(Exception):
    """A request over HTTP that is refused with a status code."""

    def __init__(self, status: int, kind: ErrorKind, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = ErrorAnswer(kind=kind, message=message)
        self.headers = dict(headers or {})


def unknown(what: str) -> RefusedError:
    """There is no such thing, or it belongs to another client: the answer is the same."""
    return RefusedError(404, ErrorKind.UNKNOWN, f"there is no such {what}; it may have been deleted, or never existed")
