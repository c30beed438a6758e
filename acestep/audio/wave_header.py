"""The headers of WAV and AIFF files: speakers, and sizes that are missing or larger than the file."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from acestep.audio.patched import Patched

_WAVE = (b"RIFF", b"RF64")
_UNKNOWN_SIZE = b"\xff" * 4
"""The size that libsndfile, like most programs, reads as: to the end of the file."""

_STREAM_BYTES = 0x7FFF_0000
"""Streaming programs write sizes from here on, because they do not know the size yet."""

_EXTENSIBLE = b"\xfe\xff"


def channel_mask(file: BinaryIO) -> int:
    """Return the channel mask in the header of a WAV file, 0 if it has none."""
    for name, start, size in chunks(file):
        if name == b"fmt ":
            file.seek(start)
            body = file.read(min(size, 24))
            extensible = len(body) == 24 and body[:2] == _EXTENSIBLE
            return int(struct.unpack_from("<I", body, 20)[0]) if extensible else 0
    return 0


def open_ended_wave(file: BinaryIO) -> Patched | None:
    """Return a WAV file that says that its sound goes on to its end; None if it gives the size of its sound.

    A program that streams, or that was ended, leaves the size 0.
    """
    for name, start, size in chunks(file):
        if name != b"data":
            continue
        file.seek(start)
        following = file.read(8)
        end = file.seek(0, 2)
        if size or not following or _is_chunk(following, end - start):
            return None
        return Patched(file, start - 4, _UNKNOWN_SIZE)
    return None


def present_share(file: BinaryIO) -> float:
    """Return the share of a WAV or AIFF file that is there, by the size in its header; 1 if it does not say."""
    file.seek(0)
    header = file.read(12)
    is_wave, is_aiff = header[:4] == b"RIFF", header[:4] == b"FORM" and header[8:11] == b"AIF"
    if len(header) < 12 or not (is_wave or is_aiff):
        return 1.0
    said = int.from_bytes(header[4:8], "little" if is_wave else "big")
    return 1.0 if not 0 < said < _STREAM_BYTES else min(1.0, file.seek(0, 2) / (said + 8))


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and size of each chunk of a WAV file."""
    file.seek(0)
    header = file.read(12)
    if header[:4] not in _WAVE or header[8:] != b"WAVE":
        return
    place = 12
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        yield name, place + 8, size
        place += 8 + size + size % 2
        file.seek(place)


def _is_chunk(following: bytes, left: int) -> bool:
    """Return whether bytes are the beginning of another chunk that fits into what is left of the file."""
    name, size = following[:4], following[4:]
    return len(size) == 4 and name.isascii() and name.decode().isprintable() and int.from_bytes(size, "little") <= left
