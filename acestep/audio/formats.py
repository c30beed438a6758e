"""Which audio files can be read, and what to do with those that cannot."""

import re
import shlex
from pathlib import Path

HEADERLESS = (".raw", ".pcm", ".sw", ".s16", ".s16le", ".s24le", ".s32le", ".f32", ".f32le")
"""Suffixes of files with raw samples and no header."""

GUESSED = (".au", ".snd", ".vox", ".vox6", ".vox8", ".gsm", *HEADERLESS)
"""Suffixes for which libsndfile takes any bytes without a known header as samples of a telephone."""

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
    (0, b"\x0b\x77", "AC-3"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (0, b"tBaK", "TAK"),
    (0, b"OFR ", "OptimFROG"),
    (4, b"moov", "QuickTime"),
    (4, b"mdat", "QuickTime"),
    (4, b"wide", "QuickTime"),
    (0, b"\0\0\1\xba", "MPEG video"),
)
"""Signatures of formats that libsndfile does not read: offset, bytes and name."""

_SOUNDLESS: tuple[tuple[bytes, str], ...] = (
    (b"MThd", "is MIDI, which has notes and no sound; play it into a sound file with a synthesizer"),
    (b"RIFF....RMID", "is MIDI, which has notes and no sound; play it into a sound file with a synthesizer"),
    (rb"(?i)\s*<(!doctype|html)", "is a web page, not a recording; download the file again"),
    (b"PK\3\4|Rar!|7z\xbc\xaf", "is an archive; unpack it and give a file from it"),
    (b"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP", "is a picture, not a recording"),
)
"""Patterns of the first bytes of files that hold no sound, and what to say about them."""

_LOGGED = re.compile(r"^(Error( opening .*?| in .*?)? ?: )+", re.DOTALL)
"""What soundfile writes before the reason that libsndfile gives."""

_NO_FRAMES = "File does not exist or is not a regular file"
"""libsndfile's reason for a file with the suffix of MP3 in which it finds no sound."""


def readable_formats() -> str:
    """The common formats that this machine's libsndfile reads, as text for a user."""
    import soundfile

    formats, ogg = soundfile.available_formats(), soundfile.available_subtypes("OGG")
    streams = " or ".join(name.capitalize() for name in ("VORBIS", "OPUS") if name in ogg)
    names = ["WAV", "FLAC", *(["MP3"] if "MP3" in formats else []), *([f"OGG ({streams})"] if streams else [])]
    return f"{', '.join(names)} and AIFF"


def reason(error: Exception) -> str:
    """Return why a file was refused, in libsndfile's words or the system's, without the file's name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    told = _LOGGED.sub("", str(error)).rstrip(".")
    return "no sound is found in it" if told.startswith(_NO_FRAMES) else told


def unreadable(path: Path, reason: str) -> str:
    """Why a file that was refused with `reason` cannot be read, and what to do about it."""
    if path.suffix.lower() in HEADERLESS:
        return (
            "has no header that says its sample rate, channels and bits; say them in converting it, such as with:"
            f" {conversion(path, '-f s16le -ar 44100 -ac 2')}"
        )
    with path.open("rb") as file:
        begin = file.read(64)
    for pattern, told in _SOUNDLESS:
        if re.match(pattern, begin, re.DOTALL):
            return told
    found = _foreign(begin)
    if found is not None:
        return (
            f"is {found}, which cannot be read; {readable_formats()} can, so convert it, such as with:"
            f" {conversion(path)}"
        )
    return (
        f"cannot be read as audio ({reason}); {readable_formats()} files can. If it is another kind of recording,"
        f" convert it, such as with: {conversion(path)}"
    )


def _foreign(begin: bytes) -> str | None:
    """The name of a format that libsndfile does not read; None if it is unknown."""
    for start, sign, name in _FOREIGN:
        if begin[start : start + len(sign)] == sign:
            return name
    # ADTS: twelve bits of synchronisation, and layer 0 where MP3 has 1 to 3.
    is_adts = len(begin) > 1 and begin[0] == 0xFF and begin[1] & 0xF6 == 0xF0
    return "AAC" if is_adts else None


def conversion(path: Path, input_options: str | None = None, output_options: str | None = None) -> str:
    """The command that converts a file to FLAC."""
    made = f"{path.stem}{'-converted' if path.suffix.lower() == '.flac' else ''}.flac"
    given, made = (shlex.quote(f"./{name}" if name.startswith("-") else name) for name in (path.name, made))
    return " ".join(filter(None, ("ffmpeg", input_options, "-i", given, output_options, made)))
