"""Files in which one recording follows another: chained Ogg, and FLAC files that were joined; the first is read."""

import mmap
from pathlib import Path

from acestep.audio.endless import FLAC_MARK

_FLAC_START = FLAC_MARK + bytes((0, 0, 0, 34))
"""The beginning of a FLAC stream, with its STREAMINFO, unless that is the only block (RFC 9639, 8.1)."""

_OGG_PAGE = b"OggS\0"
_OGG_START = _OGG_PAGE + bytes((2,))
"""The beginning of a page, and of the first page of a logical stream (RFC 3533, 6)."""


def holds_several(path: Path) -> bool:
    """Return whether a file holds a second recording after the first.

    Raises `OSError` or `ValueError` where a file cannot be mapped into memory, as on some network file systems.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:5] == _OGG_PAGE:
            # Streams that are heard together all begin before the first page of another kind (RFC 3533, 4).
            place = 0
            while content[place : place + len(_OGG_START)] == _OGG_START:
                place = content.find(_OGG_PAGE, place + 1)
            return place > 0 and content.find(_OGG_START, place) > 0
        begins = content.find(_FLAC_START, 0, 1 << 20)
        return (
            begins >= 0 and content[:4] in (FLAC_MARK, b"ID3\3", b"ID3\4") and content.find(_FLAC_START, begins + 1) > 0
        )
