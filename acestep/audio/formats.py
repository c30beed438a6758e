"""Which audio files can be read, and what to do with those that cannot."""

import shlex
from pathlib import Path

HEADERLESS = (".raw", ".pcm")
"""Suffixes of files with raw samples and no header."""

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4 or M4A (AAC or ALAC)"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"ADIF", "AAC"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b"#!AMR", "AMR"),
    (0, b".RMF", "RealAudio"),
    (0, b"FLV", "Flash video"),
    (8, b"AVI ", "AVI video"),
    (0, b"MThd", "MIDI, which has notes and no sound"),
)
"""Signatures of formats that libsndfile does not read: offset, bytes and name."""


def readable_formats() -> str:
    """The common formats that this machine's libsndfile reads, as text for a user."""
    import soundfile

    formats, ogg = soundfile.available_formats(), soundfile.available_subtypes("OGG")
    streams = " or ".join(name.capitalize() for name in ("VORBIS", "OPUS") if name in ogg)
    names = ["WAV", "FLAC", *(["MP3"] if "MP3" in formats else []), *([f"OGG ({streams})"] if streams else [])]
    return f"{', '.join(names)} and AIFF"


def unreadable(path: Path, reason: str) -> str:
    """Why a file that libsndfile refused with `reason` cannot be read, and what to do about it."""
    if path.suffix.lower() in HEADERLESS:
        return (
            "has no header that says its sample rate, channels and bits; say them in converting it, such as with:"
            f" {_conversion(path, '-f s16le -ar 44100 -ac 2')}"
        )
    found = _foreign(path)
    if found is not None:
        return (
            f"is {found}, which cannot be read; {readable_formats()} can, so convert it, such as with:"
            f" {_conversion(path)}"
        )
    return f"cannot be read as audio ({reason}); {readable_formats()} files can"


def _foreign(path: Path) -> str | None:
    """The name of a format that libsndfile does not read; None if it is unknown."""
    with path.open("rb") as file:
        begin = file.read(16)
    for start, sign, name in _FOREIGN:
        if begin[start : start + len(sign)] == sign:
            return name
    # ADTS: twelve bits of synchronisation, and layer 0 where MP3 has 1 to 3.
    is_adts = len(begin) > 1 and begin[0] == 0xFF and begin[1] & 0xF6 == 0xF0
    return "AAC" if is_adts else None


def _conversion(path: Path, input_options: str | None = None) -> str:
    """The command that converts a file to FLAC."""
    made = f"{path.stem}.flac"
    return " ".join(filter(None, ("ffmpeg", input_options, "-i", shlex.quote(path.name), shlex.quote(made))))
