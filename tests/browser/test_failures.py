"""After a run that failed or was stopped the page says why, in its language, and the next run works."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from acestep.plain_text import LONGEST_TEXT
from acestep.ui.words import PageText
from tests.browser.conftest import VIEWPORT, Visit
from tests.browser.serving import Server, serving
from tests.browser.studio import Studio, wait_until
from tests.browser.witness import OUT_OF_MEMORY

if TYPE_CHECKING:
    from playwright.sync_api import Page

LANGUAGES = ("en", "ko")
AT_ONCE_MS = 300

TIME_OF_STOPPING = """
() => {
  window.times = {};
  const note = (name) => (window.times[name] ??= performance.now());
  document.querySelector("#cancel").addEventListener("click", () => note("click"), true);
  new MutationObserver(() => {
    const said = document.querySelector("#progress .stopping");
    if (!said) return;
    note("stopping");
    window.times.said ??= said.innerText.trim();
  }).observe(document.querySelector("#progress"), {subtree: true, childList: true, attributes: true});
}
"""
"""Notes when the stop button was clicked and when the page said that it stops."""


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """A server and the sentences of its language."""

    server: Server
    language: str

    def __getitem__(self, name: str) -> str:
        return PageText(self.language).texts[name]


@pytest.fixture(params=LANGUAGES)
def spoken(request: pytest.FixtureRequest, server: Server) -> Spoken:
    """The shared server in each of two languages, which are those of the browser."""
    return Spoken(server=server, language=request.param)


def fail(studio: Studio, spoken: Spoken, reason: str) -> str:
    """Ask for a song and wait until the page says why there is none; all that it says of it."""
    studio.generate()
    studio.page.get_by_role("alert").get_by_text(spoken[reason]).wait_for()
    studio.wait_until_ready()
    # It stays where it is; a message that passes would say it twice.
    assert studio.messages() == []
    return studio.text("failure")


def succeed(studio: Studio) -> None:
    """Ask for a short song, and get it; nothing is left of the failure."""
    studio.ask(seconds=1, steps=1)
    studio.generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    assert studio.page.locator("#failure .failure").count() == 0


def test_failures_of_different_kinds_in_a_row_are_each_explained_and_the_next_song_is_made(
    spoken: Spoken, visit: Visit
) -> None:
    studio = Studio(visit(spoken.server.url, locale=spoken.language))
    studio.ask(seconds=1, steps=1)
    studio.choose("task", spoken["choice_repaint"])
    fail(studio, spoken, "failed_source")
    studio.choose("task", spoken["choice_text2music"])
    studio.write("caption", OUT_OF_MEMORY)
    assert "9.00 GiB" in fail(studio, spoken, "failed_memory")
    studio.write("caption", "x" * (LONGEST_TEXT + 1))
    assert f"{LONGEST_TEXT + 1:,}" in fail(studio, spoken, "failed_input")
    succeed(studio)


def test_missing_weights_are_explained_with_the_command_that_gets_them(tmp_path: Path, visit: Visit, port: str) -> None:
    with serving(tmp_path, "--port", port, "--model", "turbo") as server:
        for language in LANGUAGES:
            studio = Studio(visit(server.url, locale=language))
            studio.write("caption", "rain")
            for _ in range(2):
                spoken = Spoken(server=server, language=language)
                assert "acestep download turbo" in fail(studio, spoken, "failed_weights")


def test_stop_is_answered_at_once_leaves_nothing_and_the_next_song_is_made(spoken: Spoken, visit: Visit) -> None:
    server = spoken.server
    studio = Studio(visit(server.url, locale=spoken.language))
    ended, kept = len(server.observed("end")), len(server.songs())
    studio.ask(seconds=300, steps=100)
    studio.generate()
    progress = studio.control("progress")
    progress.get_by_text(spoken["stage_denoise"]).wait_for()
    studio.page.evaluate(TIME_OF_STOPPING)
    studio.control("cancel").click()
    # The run may have ended before the words are looked for.
    studio.page.wait_for_function("() => window.times.stopping")
    times = studio.page.evaluate("() => window.times")
    assert times["said"] == spoken["stage_stopping"]
    assert times["stopping"] - times["click"] < AT_ONCE_MS
    server.wait_for("end", ended + 1)
    progress.locator(".stopped").wait_for()
    studio.wait_until_ready()
    assert studio.page.locator("#failure .failure").count() == 0
    assert studio.control("song-0").count() == 0
    assert len(server.songs()) == kept
    succeed(studio)
    assert len(server.songs()) == kept + 1


def test_a_server_that_is_started_again_is_found_again_with_the_words_kept(
    tmp_path: Path, visit: Visit, port: str
) -> None:
    options = ("--port", port, "--language", "ko")
    words = PageText("ko").texts
    with serving(tmp_path / "idle", *options) as idle:
        studio = Studio(visit(idle.url))
        # The page's language is that of the command line, and gradio's own words are in it too.
        assert studio.page.evaluate("() => [document.documentElement.lang, navigator.language]") == ["ko", "ko"]
        studio.ask(seconds=120, steps=100, caption="wind in a wire fence")
        ends_under_a_banner_that_covers_nothing(idle, studio, words["connection_lost"])
    with serving(tmp_path / "in a run", *options) as busy:
        found_again(studio, words["connection_back"], failures=0)
        studio.generate()
        busy.wait_for("begin")
        assert busy.interrupt() == 130
        lost(studio, words["connection_lost"])
    with serving(tmp_path / "after", *options):
        found_again(studio, words["failed_disconnected"], failures=1)
        succeed(studio)


def lost(studio: Studio, said: str) -> None:
    """Wait until a banner says that the program has ended, and nothing else says it too."""
    studio.control("connection").get_by_text(said).wait_for()
    wait_until(lambda: studio.page.locator("[data-testid=toast-text]:visible").count() == 0)


def found_again(studio: Studio, said: str, *, failures: int) -> None:
    """Wait until the page has loaded itself, with a word about what was lost, and with the words that were typed."""
    studio.page.get_by_role("alert").get_by_text(said).wait_for()
    assert studio.page.locator("#failure .failure").count() == failures
    assert studio.control("caption").locator("textarea").input_value() == "wind in a wire fence"


def ends_under_a_banner_that_covers_nothing(server: Server, studio: Studio, said: str) -> None:
    """End the program: the banner moves the page down by its height."""
    page = studio.page
    page.set_viewport_size({"width": 700, "height": 500})
    page.evaluate("() => window.scrollTo(0, 300)")
    # A control that is never drawn anew.
    before = studio.control("caption").bounding_box()
    assert server.interrupt() == 130
    lost(studio, said)
    page.wait_for_function("() => getComputedStyle(document.body).paddingTop !== '0px'")
    box, after = studio.control("connection").bounding_box(), studio.control("caption").bounding_box()
    assert box is not None
    assert before is not None
    assert after is not None
    assert after["y"] - before["y"] == pytest.approx(box["height"], abs=1)
    page.set_viewport_size(VIEWPORT)


def test_a_page_that_is_loaded_again_in_a_run_and_a_second_one_beside_it_can_make_songs(
    server: Server, visit: Visit
) -> None:
    page = visit(server.url)
    first = Studio(page)
    begun, ended = len(server.observed("begin")), len(server.observed("end"))
    first.ask(seconds=300, steps=100)
    first.generate()
    server.wait_for("begin", begun + 1)
    second = Studio(visit(server.url))
    second.wait_until_ready()
    second.ask(seconds=1, steps=1)
    second.generate()
    second.control("progress").get_by_text(PageText("en")("progress_next")).wait_for()
    page.reload()
    # The run of a page that has gone is stopped, and the one that waited for it is made.
    server.wait_for("end", ended + 1)
    second.wait_for_song()
    second.wait_until_ready()
    again = Studio(page)
    again.wait_until_ready()
    succeed(again)


FOREIGN = {
    "Queue is full. Max size is 64 and size is 64.": "failed_not_started",
    "This application is too busy. Keep trying!": "failed_not_started",
}
"""What gradio's queue answers where it takes no run, and what the page says instead."""


def test_what_the_queue_says_is_said_in_the_language_of_the_page(spoken: Spoken, visit: Visit) -> None:
    page = visit(spoken.server.url, locale=spoken.language)
    studio = Studio(page)
    studio.ask(seconds=1, steps=1)
    for detail, said in FOREIGN.items():
        refuse(page, detail)
        studio.generate()
        page.get_by_role("alert").get_by_text(spoken[said]).first.wait_for()
        page.locator("[data-testid=toast-text]").first.wait_for()
        for toast in page.locator("[data-testid=toast-body]").all_inner_texts():
            assert spoken["error"] in toast
        assert set(studio.messages()) == {spoken[said]}
        page.unroute("**/queue/join*")
        studio.wait_until_ready()
        close_messages(studio)
    succeed(studio)


def refuse(page: "Page", detail: str) -> None:
    """Let the queue take no run of a page."""
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": detail}))


def close_messages(studio: Studio) -> None:
    """Close every message that passes."""
    while studio.page.get_by_test_id("toast-close").count():
        left = studio.page.get_by_test_id("toast-close").count()
        studio.page.get_by_test_id("toast-close").first.click()
        wait_until(lambda before=left: studio.page.get_by_test_id("toast-close").count() < before)


def test_an_upload_that_fails_is_explained_in_the_language_of_the_page(spoken: Spoken, visit: Visit) -> None:
    page = visit(spoken.server.url, locale=spoken.language)
    studio = Studio(page)
    studio.turn_to(0)
    studio.choose("task", spoken["choice_cover"])
    studio.open_everything()
    box = studio.control("source-audio").locator("input[type=file]")

    def told(name: str, kind: str, status: int) -> set[str]:
        page.route("**/upload*", lambda route: route.fulfill(status=status, body="in English"))
        box.set_input_files({"name": name, "mimeType": kind, "buffer": b"no sound"})
        page.locator("[data-testid=toast-text]").first.wait_for()
        said = set(studio.messages())
        close_messages(studio)
        page.unroute("**/upload*")
        return said

    assert told("song.raw", "application/octet-stream", 200) == {spoken["upload_kind"]}
    assert told("song.wav", "audio/wav", 413) == {spoken["upload_size"]}
    assert told("song.wav", "audio/wav", 500) == {spoken["upload_failed"]}
