"""The bitrates of MP3 files."""

from acestep.errors import UsageError

MP3_BITRATES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""The constant bitrates of MP3 at 48 kHz in kbit/s (ISO/IEC 11172-3, layer III), from the first at which a file says
how long it is: in the smaller frames of lower ones there is no room for that."""


def require_fitting_bitrate(audio_format: str, mp3_bitrate: int | None) -> None:
    """Raise `UsageError` for a bitrate that MP3 does not have, or for another format than MP3."""
    if mp3_bitrate is None:
        return
    if mp3_bitrate not in MP3_BITRATES:
        raise UsageError(f"the bitrate of mp3 must be one of {', '.join(map(str, MP3_BITRATES))}, got {mp3_bitrate}")
    if audio_format != "mp3":
        raise UsageError(f"a bitrate is for mp3, and the format is {audio_format}; leave the bitrate out")
