"""A song from the page: requested, watched, played, stored, and stopped."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server, serving
from tests.browser.studio import RECORD_PROGRESS, Studio, wait_until

SEEK_THEN_PLAY_ANOTHER = """
() => new Promise((done) => {
  const [first, second] = document.querySelectorAll("#history .song");
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    this.addEventListener("loadedmetadata", () => done(this.currentTime), { once: true });
    return new Promise(() => {});
  };
  const range = first.querySelector("input[type=range]");
  range.focus();
  range.value = "900";
  range.dispatchEvent(new Event("input", { bubbles: true }));
  second.querySelector(".play").click();
  HTMLMediaElement.prototype.play = play;
})
"""
"""Where the second song is once it has come, if the first was wound forward before it had come. Neither is played."""


def test_a_song_shows_progress_can_be_played_and_is_stored(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    studio = Studio(page)
    page.evaluate(RECORD_PROGRESS)
    studio.ask(seconds=12, steps=60, think=True)
    studio.generate()
    song = studio.control("song-0")
    song.get_by_text("0:12").wait_for()
    song.get_by_label("Play", exact=True).click()
    wait_until(lambda: any(player["at"] > 0.2 for player in studio.players()))
    assert [player["seconds"] for player in studio.players()] == [pytest.approx(12, abs=0.1)]
    song.get_by_label("Pause", exact=True).click()
    song.get_by_label("Play", exact=True).wait_for()
    watched = "\n".join(page.evaluate("() => window.progress"))
    assert all(PageText("en").texts[f"stage_{stage}"] in watched for stage in ("think", "denoise"))
    with page.expect_download() as kept:
        song.locator("a[download]").click()
    audio, rate = soundfile.read(kept.value.path())
    assert rate == 48_000
    assert len(audio) == pytest.approx(12 * rate, abs=0.1 * rate)
    assert np.abs(audio).max() > 0
    assert kept.value.suggested_filename in [path.name for path in server.out.rglob("*") if path.is_file()]


def test_two_visitors_wait_for_each_other_and_see_only_their_own_songs(server: Server, visit: Visit) -> None:
    captions = ("a brass band at noon", "one flute at midnight")
    studios = [Studio(visit(server.url)) for _ in captions]
    for seed, (studio, caption) in enumerate(zip(studios, captions, strict=True)):
        studio.ask(seconds=6, steps=8, caption=caption)
        studio.tick("random-seed", on=False)
        studio.set("seed", seed)
    for studio in studios:
        studio.generate()
    for studio in studios:
        studio.wait_for_song()
    assert server.most_songs_at_once() == 1
    names = [studio.downloads() for studio in studios]
    assert [len(name) for name in names] == [1, 1]
    assert names[0] != names[1]
    for studio, other in zip(studios, reversed(captions), strict=True):
        studio.wait_for_song()
        assert other not in studio.page.locator("body").inner_text()
    # A song's name follows from its caption and seed, so a visitor who knows those must not get it by name.
    for path in server.songs():
        assert studios[0].page.request.get(f"{server.url}/gradio_api/file={path}").status == 403
    for studio, caption in zip(studios, captions, strict=True):
        studio.control("history").get_by_text(caption).wait_for()


def test_the_buttons_of_a_card_do_what_they_say(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    studio = Studio(page)
    kept = len(server.songs())
    studio.ask(seconds=1, steps=1, caption="a kettle in the hall")
    studio.tick("random-seed", on=False)
    studio.set("seed", 5)
    studio.set("batch", 2)
    studio.generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    # Files of one batch can be told apart.
    assert ["seed 5" in studio.text("song-0"), "seed 6" in studio.text("song-1")] == [True, True]
    assert page.evaluate(SEEK_THEN_PLAY_ANOTHER) == 0
    with page.expect_download() as packed:
        studio.control("history").locator("[data-act=zip]").click()
    with zipfile.ZipFile(packed.value.path()) as archive:
        assert sorted(archive.namelist()) == sorted(studio.downloads())
        assert archive.testzip() is None
    studio.write("caption", "something else")
    studio.act("use", song=1)
    wait_until(lambda: "kettle" in studio.text("caption"))
    wait_until(lambda: (studio.number("seed"), studio.checked("random-seed")) == (6, False))
    studio.act("another")
    studio.control("song-2").wait_for()
    studio.wait_until_ready()
    wait_until(lambda: studio.checked("random-seed"))
    assert "kettle" in studio.text("song-0")
    page.once("dialog", lambda dialog: dialog.accept())
    studio.act("delete")
    studio.control("song-2").wait_for(state="detached")
    assert "seed 5" in studio.text("song-0")
    assert len(server.songs()) == kept + 2


def test_songs_and_the_form_survive_a_reload_and_a_song_s_file_fills_the_form(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    studio = Studio(page)
    studio.ask(seconds=1, steps=2, caption="a lamp in the fog")
    studio.generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    (name,) = studio.downloads()
    studio.choose("language", "한국어")
    studio.write("lyrics", "la la")
    page.reload()
    studio = Studio(page)
    studio.wait_for_song()
    studio.open_everything()
    assert studio.downloads() == [name]
    # The form is filled a moment after the page is there.
    wait_until(lambda: ("lamp" in studio.text("caption"), "la la" in studio.text("lyrics")) == (True, True))
    wait_until(lambda: (studio.number("steps"), studio.chosen("language")) == (2, "한국어"))
    file = next(path for path in server.songs() if path.name == name)
    studio.write("caption", "something else")
    with page.expect_file_chooser() as chooser:
        studio.control("like").click()
    chooser.value.set_files(file)
    wait_until(lambda: "lamp" in studio.text("caption"))
    # A song that was asked for has all of its settings, so what was written beside it is gone.
    wait_until(lambda: "la la" not in studio.text("lyrics") and studio.number("duration") == 1)


def test_the_choice_of_adapters_stays_as_it_was_for_a_song(tmp_path: Path, visit: Visit, port: str) -> None:
    # PyTorch, which no other test here needs in this process.
    from tests.adapters import lora

    made = lora(tmp_path / "folk", "layers.0.cross_attn.to_v", (32, 64), np.random.default_rng(6), told="config")
    with serving(tmp_path, "--port", port, "--lora", str(made.path)) as server:
        page = visit(server.url)
        studio = Studio(page)
        every, none = studio.choices("adapter")
        studio.choose("adapter", none)
        studio.ask(seconds=1, steps=1, caption="a lamp in the fog")
        studio.generate()
        studio.wait_for_song()
        studio.wait_until_ready()
        page.reload()
        studio = Studio(page)
        wait_until(lambda: studio.chosen("adapter") == none)
        page.locator("#examples [data-act=example]").first.click()
        wait_until(lambda: "lamp" not in studio.text("caption"))
        assert studio.chosen("adapter") == none
        studio.choose("adapter", every)
        studio.act("use")
        wait_until(lambda: studio.chosen("adapter") == none)
        # The form of a program that was started with another adapter.
        page.evaluate("""() => {
          const form = JSON.parse(sessionStorage.getItem("acestep-form"));
          // The page must not write over it.
          window.acestepRestored = false;
          sessionStorage.setItem("acestep-form", JSON.stringify({ ...form, adapter: "rock:1", caption: "rock" }));
        }""")
        page.reload()
        studio = Studio(page)
        wait_until(lambda: "rock" in studio.text("caption"))
        assert studio.chosen("adapter") == every
