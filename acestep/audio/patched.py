"""A file with some of its bytes replaced, as a file object: headers that mislead libsndfile are corrected so."""

from typing import BinaryIO


class Patched:
    """An open file that reads as if `replacement` stood at byte `place`; nothing is written."""

    def __init__(self, file: BinaryIO, place: int, replacement: bytes) -> None:
        self._file = file
        self._place = place
        self._replacement = replacement

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        start = self._file.tell()
        found = bytearray(self._file.read(size))
        for index in range(max(start, self._place), min(start + len(found), self._place + len(self._replacement))):
            found[index - start] = self._replacement[index - self._place]
        return bytes(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The byte that is next."""
        return self._file.tell()
