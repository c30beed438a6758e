"""The language model's plan: shown, changed, and followed by the song, without being made again."""

from pathlib import Path

from acestep.audio.comments import comment_in
from acestep.song_settings import settings_in
from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server
from tests.browser.studio import Studio, wait_until


def planned(studio: Studio, caption: str) -> str:
    """Let the song of a caption be planned; the caption of the plan."""
    studio.ask(seconds=0, steps=1, caption=caption)
    studio.plan()
    studio.control("plan-panel").wait_for()
    studio.wait_until_ready()
    return studio.written("plan-caption")


def test_a_plan_can_be_changed_and_the_song_follows_it(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    studio = Studio(page)
    assert not studio.control("plan-panel").is_visible()
    assert planned(studio, "a gate in the wind")
    # The cursor is in the plan, for those who use the keyboard.
    page.wait_for_function("() => document.activeElement.matches('#plan-caption textarea')")
    assert studio.checked("think")
    assert studio.number("plan-bpm") >= 30
    assert studio.number("plan-duration") >= 10
    assert studio.number("bpm") == 0, "what the visitor asked for stays"
    studio.write("plan-caption", "a gate of iron")
    studio.set("plan-bpm", 91)
    studio.set("plan-duration", 1)
    studio.choose("plan-keyscale", "A minor")
    page.reload()
    studio = Studio(page)
    studio.control("plan-panel").wait_for()
    wait_until(lambda: (studio.written("plan-caption"), studio.number("plan-bpm")) == ("a gate of iron", 91))
    studio.press_to_generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    (name,) = studio.downloads()
    made = settings_in(comment_in(path := song(server, name)), path.name).request
    assert (made.caption, made.thinking.planned_caption) == ("a gate in the wind", "a gate of iron")
    assert (made.bpm, made.keyscale, made.duration_s, made.think) == (91, "A minor", 1, True)
    # What the song was planned with can be taken up again, and let go.
    studio.control("unplan").click()
    studio.control("plan-panel").wait_for(state="hidden")
    page.reload()
    studio = Studio(page)
    wait_until(lambda: "gate" in studio.text("caption"))
    assert not studio.control("plan-panel").is_visible()
    studio.act("use")
    studio.control("plan-panel").wait_for()
    wait_until(lambda: (studio.written("plan-caption"), studio.number("plan-bpm")) == ("a gate of iron", 91))
    studio.tick("think", on=False)
    assert not studio.control("plan-panel").is_visible()


ENDED = """typing => {
  document.activeElement.blur();
  if (typing) document.querySelector("#lyrics textarea").focus();
  window.acestepPlan.made();
  return new Promise((done) => setTimeout(() => done(document.activeElement.closest("[id]").id), 200));
}"""
"""Lets a plan end for a visitor who is typing or not; gives the id of the control with the cursor."""


def test_a_plan_is_discarded_when_what_it_was_made_from_changes(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    studio, words = Studio(page), PageText("en")
    studio.open_everything()
    assert planned(studio, "a bridge of stone")
    assert [page.evaluate(ENDED, typing) for typing in (True, False)] == ["lyrics", "plan-caption"]
    studio.write("lyrics", "over the river")
    studio.set("seed", 7)
    assert studio.control("plan-panel").is_visible(), "the song follows these with the plan too"
    studio.set("bpm", 100)
    studio.control("plan-panel").wait_for(state="hidden")
    wait_until(lambda: words("plan_discarded") in studio.text("warnings"))
    # Also where it changes while the plan is made.
    page.evaluate("() => { window.acestepPlan.asked(); window.acestepPlan.changed(false); }")
    assert page.evaluate("() => window.acestepPlan.made()")[0] is False


def test_a_task_on_a_song_that_exists_offers_no_plan(server: Server, visit: Visit) -> None:
    studio, words = Studio(visit(server.url)), PageText("en")
    studio.turn_to(0)
    studio.control("plan").wait_for()
    studio.choose("task", words("choice_cover"))
    studio.control("plan").wait_for(state="hidden")
    studio.choose("task", words("choice_text2music"))
    studio.control("plan").wait_for()


def test_a_plan_waits_for_the_song_of_another_visitor_and_can_be_stopped(server: Server, visit: Visit) -> None:
    first, second = (Studio(visit(server.url)) for _ in range(2))
    begun = len(server.observed("begin"))
    first.ask(seconds=300, steps=100)
    first.generate()
    server.wait_for("begin", begun + 1)
    second.ask(seconds=2, steps=1)
    second.plan()
    second.control("progress").get_by_text(PageText("en")("progress_next")).wait_for()
    second.control("cancel").click()
    second.control("progress").locator(".stopped").wait_for()
    second.wait_until_ready()
    second.plan()
    second.control("progress").get_by_text(PageText("en")("progress_next")).wait_for()
    first.control("cancel").click()
    second.control("plan-panel").wait_for()
    assert not first.control("plan-panel").is_visible()
    assert second.written("plan-caption")


def test_without_a_caption_nothing_is_planned_and_the_page_says_why(server: Server, visit: Visit) -> None:
    studio = Studio(visit(server.url, locale="ko"))
    studio.plan()
    studio.page.get_by_role("alert").get_by_text(PageText("ko")("failed_caption")).wait_for()
    assert not studio.control("plan-panel").is_visible()


def song(server: Server, name: str) -> Path:
    """A song in the output folder."""
    return next(path for path in server.out.rglob(name))
