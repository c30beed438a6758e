"""A song from the page: asked for, watched, heard, kept, and called off."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.browser.conftest import Visit
from tests.browser.serving import Server
from tests.browser.studio import RECORD_PLAYERS, RECORD_PROGRESS, WAIT_MS, Studio


def asked(studio: Studio, *, seconds: float, steps: int, caption: str = "rain on a tin roof") -> None:
    """Fill the form in."""
    studio.write("caption", caption)
    studio.set("duration", seconds)
    studio.set("steps", steps)


def test_a_song_is_watched_heard_and_kept(server: Server, visit: Visit) -> None:
    page = visit("about:blank")
    page.add_init_script(RECORD_PLAYERS)
    page.goto(server.url)
    studio = Studio(page)
    page.evaluate(RECORD_PROGRESS)
    asked(studio, seconds=12, steps=8)
    studio.generate()
    song = studio.control("song-0")
    song.get_by_label("Play", exact=True).wait_for()
    page.wait_for_function("() => window.players.some(player => player.duration > 0)")
    (player,) = studio.players()
    assert player["seconds"] == pytest.approx(12, abs=0.1)
    song.get_by_label("Play", exact=True).click()
    page.wait_for_function("() => window.players.some(player => player.currentTime > 0.2)")
    for stage in ("denoise", "decode"):
        assert stage in "\n".join(page.evaluate("() => window.progress")).lower()
    with page.expect_download() as kept:
        studio.control("download").locator("a[download]").first.click()
    audio, rate = soundfile.read(kept.value.path())
    assert rate == 48_000
    assert len(audio) == pytest.approx(12 * rate, abs=0.1 * rate)
    assert np.abs(audio).max() > 0
    assert kept.value.suggested_filename in [path.name for path in server.out.rglob("*") if path.is_file()]
