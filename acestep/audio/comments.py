"""The title and the comment that a song file carries in its tags."""

import struct
from pathlib import Path
from typing import Final

from acestep.audio.sound_size import chunks
from acestep.errors import InvalidInputError
from acestep.regular_file import open_regular

_ID3: Final = (b"id3 ", b"ID3 ")
"""The chunk of a WAV file with an ID3 tag; libsndfile writes another one, without any comment above 2 KiB."""

_MOST_BYTES: Final = 16 << 20

_TAG, _FRAME = struct.Struct(">3s2BB4s"), struct.Struct(">4s4sH")
_LATIN1, _UTF16 = b"\0", b"\1"
_ENCODINGS: Final = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}


def add_id3(path: Path, title: str, comment: str) -> None:
    """Add an ID3 tag to a complete WAV or MP3 file; the comment is in ASCII."""
    tag = _tag(title, comment)
    if path.suffix == ".mp3":
        path.write_bytes(tag + path.read_bytes())
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.write(b"\0" * (end % 2) + struct.pack("<4sI", _ID3[0], len(tag)) + tag + b"\0" * (len(tag) % 2))
        whole = file.tell() - 8
        file.seek(4)
        file.write(struct.pack("<I", whole))


def comment_in(path: Path) -> str | None:
    """Return the comment of an audio file, None if it has none; `InvalidInputError` says why it cannot be read."""
    import soundfile

    try:
        with open_regular(path) as file:
            is_wave = file.read(4) == b"RIFF"
            for chunk in chunks(file) if is_wave else ():
                if chunk.name in _ID3 and chunk.size <= _MOST_BYTES:
                    file.seek(chunk.start)
                    return _comment_of(file.read(chunk.size))
        with soundfile.SoundFile(path) as song:
            return str(song.comment) or None
    except FileNotFoundError:
        raise InvalidInputError(path, "there is no such file") from None
    except (OSError, soundfile.LibsndfileError) as error:
        raise InvalidInputError(path, f"it cannot be read as audio ({error})") from None


def _tag(title: str, comment: str) -> bytes:
    """An ID3 tag of version 2.3 (id3.org)."""
    frames = _frame(b"TIT2", _UTF16 + title.encode("utf-16", "replace"))
    frames += _frame(b"COMM", _LATIN1 + b"eng\0" + comment.encode("ascii"))
    # Seven bits in each byte, so that no part of the size looks like the beginning of sound.
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return _TAG.pack(b"ID3", 3, 0, 0, size) + frames


def _frame(name: bytes, body: bytes) -> bytes:
    return _FRAME.pack(name, len(body).to_bytes(4, "big"), 0) + body


def _comment_of(tag: bytes) -> str | None:
    """The first comment of a tag; another program may have written it again in another version or encoding."""
    if tag[:3] != b"ID3":
        return None
    bits = 7 if tag[3:4] >= b"\4" else 8
    place = _TAG.size
    while len(tag) - place >= _FRAME.size:
        name, sized, _ = _FRAME.unpack_from(tag, place)
        size = sum(byte << bits * power for power, byte in enumerate(reversed(sized)))
        place += _FRAME.size
        body = tag[place : place + size]
        if name == b"COMM" and body[:1] and body[0] in _ENCODINGS:
            text = body[4:].decode(_ENCODINGS[body[0]], "replace")
            return text.partition("\0")[2].strip("\0\ufeff")
        place += size
    return None
