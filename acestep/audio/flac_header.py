"""FLAC files whose header does not give their length, or gives a wrong one.

libsndfile stops at the length in the header, which is written before the audio: streaming programs leave it 0, others
guess. With the number 0 in the header, a file is read to its real end.
"""

from pathlib import Path
from typing import BinaryIO

FLAC_MARK = b"fLaC"

_TOTAL = slice(21, 26)
"""The bytes whose last 36 bits are the number of samples (RFC 9639, 8.2): STREAMINFO is always the first block."""

_TOTAL_BITS = (1 << 36) - 1


def is_flac(path: Path) -> bool:
    """Return whether a file starts as a FLAC file."""
    with path.open("rb") as file:
        return file.read(len(FLAC_MARK)) == FLAC_MARK


class EndlessFlac:
    """A FLAC file as a file object; its header is changed to say that the number of samples is unknown."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = file.read(_TOTAL.stop)
        file.seek(0)
        total = int.from_bytes(header[_TOTAL], "big")
        self._unknown = (total & ~_TOTAL_BITS).to_bytes(_TOTAL.stop - _TOTAL.start, "big")
        self.said_samples = total & _TOTAL_BITS
        """The number of samples in the original header, 0 for unknown."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        start = self._file.tell()
        found = bytearray(self._file.read(size))
        for index in range(max(start, _TOTAL.start), min(start + len(found), _TOTAL.stop)):
            found[index - start] = self._unknown[index - _TOTAL.start]
        return bytes(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The byte that is next."""
        return self._file.tell()
