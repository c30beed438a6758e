"""Forms with recordings, in which clients upload them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from acestep.http_api.documents import ErrorKind, UploadDocument
from acestep.http_api.recordings import Recordings
from acestep.http_api.refused import RefusedError
from acestep.http_api.steady import steady
from acestep.serving.bounds import LARGEST_UPLOAD_BYTES
from acestep.units import MIB, gib

FORM_TYPE: Final = "multipart/form-data"

MOST_BODY_BYTES: Final = 16 * MIB
"""The largest JSON document: a caption, lyrics and a negative prompt of a million characters each."""


class ReceivedForm(msgspec.Struct, frozen=True, kw_only=True):
    """The recordings in a form by their fields, and its text."""

    uploads: dict[str, UploadDocument]
    text: bytes = b""


def content_type(request: Request) -> str:
    """Return what the body of a request is said to be, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive_form(
    request: Request, recordings: Recordings, client: str, *, files: Collection[str], text: str | None = None
) -> ReceivedForm:
    """Keep the recordings of a form, in fields of the names in `files`, and return them and the field `text`.

    Raises `RefusedError` for another form, for one that is too large or too slow, while two others of the client come,
    and if the disk refuses; then nothing is kept.
    """
    size = _said_size(request, LARGEST_UPLOAD_BYTES * len(files) + (MOST_BODY_BYTES if text else 0))
    fields = len(files) + (text is not None)
    kept: dict[str, UploadDocument] = {}
    with _refusals(), recordings.arriving(size, client) as arrived:
        async with steady(request).form(max_files=fields, max_fields=fields, max_part_size=MOST_BODY_BYTES) as form:
            _require_fields(form, files, text)
            said = b"" if text is None else await _text(form, text)
            if any(isinstance(file := form.get(name), UploadFile) and _is_too_large(file) for name in files):
                raise _too_large()
            try:
                for name in files:
                    if isinstance(file := form.get(name), UploadFile):
                        kept[name] = await run_in_threadpool(recordings.keep, file.file, file.filename or "", client)
                        arrived.append(recordings.path_of(kept[name].id, None))
            except OSError:
                recordings.discard(upload.id for upload in kept.values())
                raise
    return ReceivedForm(uploads=kept, text=said)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except HTTPException as error:
        raise RefusedError(422, ErrorKind.INPUT, f"the form cannot be read: {error.detail}") from None
    except OSError as error:
        raise RefusedError(
            507, ErrorKind.SIZE, f"the server's disk refused the upload ({error.strerror}); is it full?"
        ) from None


def _require_fields(form: FormData, files: Collection[str], text: str | None) -> None:
    """Raise `RefusedError` unless the form has each field at most once, and no other."""
    names = [name for name, _ in form.multi_items()]
    known = (*files, *((text,) if text else ()))
    misplaced = [name for name in files if name in form and not isinstance(form[name], UploadFile)]
    if sorted(names) != sorted({*names} & {*known}) or misplaced:
        raise RefusedError(
            422, ErrorKind.INPUT, f"the form may have {' and '.join(known)}, each once, and recordings as files"
        )


async def _text(form: FormData, name: str) -> bytes:
    value = form.get(name)
    if isinstance(value, UploadFile):
        if (value.size or 0) > MOST_BODY_BYTES:
            raise RefusedError(413, ErrorKind.SIZE, f"{name} may have {MOST_BODY_BYTES:,} bytes")
        return await value.read()
    if value is None:
        raise RefusedError(422, ErrorKind.INPUT, f"the form needs the field {name}, a JSON document")
    return value.encode()


def _said_size(request: Request, most: int) -> int:
    said = request.headers.get("content-length", "")
    if not (said.isascii() and said.isdigit()):
        raise RefusedError(411, ErrorKind.SIZE, "an upload has to say its size: send the header content-length")
    if len(said) > len(str(most)) or int(said) > most:
        raise _too_large()
    return int(said)


def _is_too_large(file: UploadFile) -> bool:
    return (file.size or 0) > LARGEST_UPLOAD_BYTES


def _too_large() -> RefusedError:
    largest = gib(LARGEST_UPLOAD_BYTES)
    return RefusedError(413, ErrorKind.SIZE, f"a recording may have {largest}; bring a shorter one, or FLAC or MP3")
