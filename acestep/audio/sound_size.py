"""The chunks of WAV, AIFF, CAF and W64 files and of AU files: speakers, and sizes that are missing or wrong.

A program that streams, or that was ended, leaves the size of its sound 0 or the largest number. libsndfile refuses some
of these files and finds no sound in others.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, Literal, NamedTuple

from acestep.audio.patched import Patched

_STREAM_BYTES = {4: 0x7FFF_0000, 8: 1 << 40}
"""Streaming programs write sizes from here on, in four bytes or in eight, because they do not know the size yet."""

_EXTENSIBLE = b"\xfe\xff"

_MOST_CHUNKS = 10_000
"""Chunks that are looked at: recordings have less than a hundred, and zeros look like empty chunks."""


class _Layout(NamedTuple):
    """How a format writes its chunks: a name, a size, and so many bytes.

    `mark` and `kind` are the file's first bytes and those at byte 8, `first` is the place of the first chunk. A size of
    `width` bytes may count the header; the next chunk begins at a multiple of `step` bytes after this one's content.
    """

    mark: bytes
    kind: bytes
    first: int
    name: int
    width: int
    order: Literal["big", "little"]
    step: int
    counts_header: bool = False


_LAYOUTS = (
    _Layout(b"RIFF", b"WAVE", 12, 4, 4, "little", 2),
    _Layout(b"RF64", b"WAVE", 12, 4, 4, "little", 2),
    _Layout(b"FORM", b"AIF", 12, 4, 4, "big", 2),
    _Layout(b"caff", b"", 8, 4, 8, "big", 1),
    _Layout(b"riff", b"", 40, 16, 8, "little", 8, counts_header=True),
)


class Chunk(NamedTuple):
    """Where the size of a chunk stands and where its content begins; `size` is that of the content.

    The size in the file is larger by `more`.
    """

    name: bytes
    place: int
    width: int
    order: Literal["big", "little"]
    start: int
    size: int
    more: int = 0


def channel_mask(file: BinaryIO) -> int:
    """Return the channel mask in the header of a WAV file, 0 if it has none."""
    for chunk in chunks(file):
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            body = file.read(min(chunk.size, 24))
            extensible = len(body) == 24 and body[:2] == _EXTENSIBLE
            return int(struct.unpack_from("<I", body, 20)[0]) if extensible else 0
    return 0


def with_sound_size(file: BinaryIO) -> tuple[Patched | None, float]:
    """Return a file with the real size of its sound, and the share of the sound that is there.

    None if the file's own size can be used. The share is 1 if the file does not say how much there was.
    """
    sound = _sound(file)
    if sound is None:
        return None, 1.0
    there = file.seek(0, 2) - sound.start
    streamed = not 0 < sound.size < _STREAM_BYTES[sound.width]
    if (sound.size <= there and not streamed) or there <= 0 or _is_empty(file, sound, there):
        return None, 1.0
    written = min(there + sound.more, (1 << 8 * sound.width) - 1).to_bytes(sound.width, sound.order)
    return Patched(file, sound.place, written), 1.0 if streamed else there / sound.size


def _sound(file: BinaryIO) -> Chunk | None:
    """The chunk with a file's sound; None for another format and for a file without sound."""
    file.seek(0)
    header = file.read(36)
    if header[:4] in (b".snd", b"dns.") and len(header) >= 12:
        order: Literal["big", "little"] = "big" if header[:1] == b"." else "little"
        start, size = (int.from_bytes(header[at : at + 4], order) for at in (4, 8))
        return Chunk(b"", 8, 4, order, start, size)
    found = next((chunk for chunk in chunks(file) if chunk.name in (b"data", b"SSND")), None)
    if found is not None and header[12:16] == b"ds64" and found.size == 0xFFFF_FFFF:
        # In RF64 the size stands in the first chunk.
        return found._replace(place=28, width=8, size=int.from_bytes(header[28:36], "little"))
    return found


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a file, none for other formats."""
    return islice(_all_chunks(file), _MOST_CHUNKS)


def _all_chunks(file: BinaryIO) -> Iterator[Chunk]:
    file.seek(0)
    begin = file.read(12)
    layout = next((one for one in _LAYOUTS if begin.startswith(one.mark) and begin[8:].startswith(one.kind)), None)
    if layout is None:
        return
    place = layout.first
    file.seek(place)
    long = layout.name + layout.width
    while len(header := file.read(long)) == long:
        size = int.from_bytes(header[layout.name :], layout.order)
        more = long if layout.counts_header else 0
        size = max(0, size - more)
        yield Chunk(header[:4], place + layout.name, layout.width, layout.order, place + long, size, more)
        place += long + -(-size // layout.step) * layout.step
        if place >= 1 << 62:
            return
        file.seek(place)


def _is_empty(file: BinaryIO, sound: Chunk, there: int) -> bool:
    """Return whether a chunk without a size is really empty: the next chunk follows at once."""
    if sound.size or sound.width != 4:
        return False
    file.seek(sound.start)
    following = file.read(8)
    name, size = following[:4], following[4:]
    is_name = name.isascii() and name.decode().isprintable()
    return len(size) < 4 or (is_name and int.from_bytes(size, sound.order) <= there)
