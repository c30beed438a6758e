"""FLAC files whose header does not give their length, or gives a wrong one.

libsndfile stops at the length in the header, which is written before the audio: streaming programs leave it 0, others
guess. With the number 0 in the header, a file is read to its real end.
"""

from typing import BinaryIO

from acestep.audio.patched import Patched

FLAC_MARK = b"fLaC"

_TOTAL = slice(21, 26)
"""The bytes whose last 36 bits are the number of samples (RFC 9639, 8.2): STREAMINFO is always the first block."""

_TOTAL_BITS = (1 << 36) - 1


def endless_flac(file: BinaryIO) -> tuple[Patched, int] | None:
    """Return a FLAC file that says that its number of samples is unknown, and the number that it said, 0 for unknown.

    None for a file that does not begin as a FLAC file.
    """
    header = file.read(_TOTAL.stop)
    file.seek(0)
    if not header.startswith(FLAC_MARK):
        return None
    total = int.from_bytes(header[_TOTAL], "big")
    unknown = (total & ~_TOTAL_BITS).to_bytes(_TOTAL.stop - _TOTAL.start, "big")
    return Patched(file, _TOTAL.start, unknown), total & _TOTAL_BITS
