"""Compressed files that do not give their length, or give a wrong one: FLAC, MP3 and Ogg.

libsndfile stops at the length in the header, which is written before the audio: streaming programs leave it out, others
guess. For an MP3 file without a length, libsndfile guesses from the size of the first frames.
"""

from typing import BinaryIO

from acestep.audio.patched import Patched

FLAC_MARK = b"fLaC"

_TOTAL = slice(21, 26)
"""The bytes whose last 36 bits are the number of samples (RFC 9639, 8.2): STREAMINFO is always the first block."""

_TOTAL_BITS = (1 << 36) - 1

_LENGTH_TAGS = (b"Xing", b"Info")
"""Marks of the tag in the first frame of an MP3 file that gives its number of frames and of bytes."""

_LARGEST_FRAME = 2_881
"""Bytes of the largest frame of MP3."""

_SPARE_BYTES = 1 << 12
"""Bytes that may follow the sound of an MP3 file, such as a tag."""

_OGG_PAGE = b"OggS"
_LARGEST_PAGE = 1 << 16

_FAR, _NEAR_END = 1 << 40, 1 << 16


class Endless(Patched):
    """A file that says it is very long; what it ends with is read as zeros, and its content ends as it does."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return super().seek(_FAR + offset) if whence == 2 else super().seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if 0 <= _FAR - self.tell() <= _NEAR_END:
            return bytes(min(max(size, 0), _FAR - self.tell()))
        return super().read(size)


def endless(file: BinaryIO) -> tuple[Patched, int] | None:
    """Return a FLAC or MP3 file that is read to its end, and its number of samples in its header, 0 for unknown.

    None for another file, and for an MP3 file whose header agrees with its size.
    """
    start = _after_tag(file)
    file.seek(start)
    header = file.read(64)
    if header.startswith(FLAC_MARK):
        total = int.from_bytes(header[_TOTAL], "big")
        unknown = (total & ~_TOTAL_BITS).to_bytes(_TOTAL.stop - _TOTAL.start, "big")
        return Patched(file, start + _TOTAL.start, unknown), total & _TOTAL_BITS
    # Eleven bits of synchronisation, and layer III.
    if len(header) < 64 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    mark = next((place for tag in _LENGTH_TAGS if (place := header.find(tag, 4, 48)) > 0), 0)
    if not mark:
        # Fraunhofer's tag stands at another place.
        return None if header[36:40] == b"VBRI" else (Endless(file, 0, b""), 0)
    flags, frames, size = (int.from_bytes(header[mark + at : mark + at + 4], "big") for at in (4, 8, 12))
    held = file.seek(0, 2) - start
    is_known = flags & 1 and frames and held <= frames * _LARGEST_FRAME + _SPARE_BYTES
    if is_known and not (flags & 2 and 0 < size < 0.95 * held - _SPARE_BYTES):
        return None
    samples = 1_152 if header[1] & 0x08 else 576
    return Endless(file, start + mark, bytes(4)), frames * samples if flags & 1 else 0


def is_cut_ogg(file: BinaryIO) -> bool:
    """Return whether a file is an Ogg file whose last page is not marked as the last (RFC 3533, 6)."""
    file.seek(0)
    if file.read(4) != _OGG_PAGE:
        return False
    file.seek(max(0, file.seek(0, 2) - 2 * _LARGEST_PAGE))
    _, _, page = file.read().rpartition(_OGG_PAGE)
    return len(page) < 2 or not page[1] & 0x04


def _after_tag(file: BinaryIO) -> int:
    """The place behind an ID3 tag at the beginning of a file (https://id3.org/id3v2.4.0-structure, 3.1)."""
    file.seek(0)
    header = file.read(10)
    if not header.startswith(b"ID3") or len(header) < 10:
        return 0
    size = 0
    for byte in header[6:]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if header[5] & 0x10 else 0)
