"""Songs as MP3 with a constant bitrate."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from acestep.audio.write import write_song
from acestep.bitrates import MP3_BITRATES, require_fitting_bitrate
from acestep.errors import Exit, UsageError
from tests import acestep_command
from tests.acestep_command import Command, stand_in_for_models

command = acestep_command.command

RATE = 48_000
_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
"""Bitrates of MPEG-1 layer III by the number in a frame's header (ISO/IEC 11172-3, 2.4.2.3)."""


def frames(data: bytes) -> Iterator[int]:
    """The bitrate of each frame of an MP3 file at 48 kHz; after its ID3 tag, frames follow one another."""
    at = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    while at + 4 <= len(data):
        assert data[at : at + 2] in (b"\xff\xfb", b"\xff\xfa"), "no frame of MPEG-1 layer III"
        kbps, padding = _KBPS[data[at + 2] >> 4], data[at + 2] >> 1 & 1
        yield kbps
        at += 144 * kbps * 1_000 // RATE + padding


@pytest.mark.parametrize("kbps", [*MP3_BITRATES, None])
def test_every_frame_has_the_bitrate_that_was_asked_for(kbps: int | None, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal((2, RATE)).astype(np.float32) / 10
    path = write_song(tmp_path, "song", "mp3", noise, RATE, title="x", comment="y", mp3_bitrate=kbps)
    found = set(frames(path.read_bytes()))
    assert found == {kbps} if kbps else len(found) > 1
    assert soundfile.info(path).frames == RATE


def test_the_command_passes_it_on_and_refuses_it_for_another_format(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def run_generate(*_: Any, **how: Any) -> dict[str, Any]:
        calls.append(how)
        return {"songs": []}

    stand_in_for_models(monkeypatch, run_generate)
    generate = ("generate", "--caption", "x", "--json", "--mp3-bitrate", "320")
    assert command(*generate, "--format", "mp3").code == Exit.OK
    assert (calls[0]["audio_format"], calls[0]["mp3_bitrate"]) == ("mp3", 320)
    refused = command(*generate)
    assert (refused.code, "for mp3" in refused.err, len(calls)) == (Exit.USAGE, True, 1)
    assert command("generate", "--caption", "x", "--format", "mp3", "--mp3-bitrate", "100").code == Exit.USAGE


@pytest.mark.parametrize(("audio_format", "kbps", "said"), [("mp3", 100, "64, 80"), ("flac", 128, "for mp3")])
def test_a_bitrate_that_cannot_be_is_refused(audio_format: str, kbps: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_fitting_bitrate(audio_format, kbps)
    require_fitting_bitrate(audio_format, None)
    require_fitting_bitrate("mp3", 128)
