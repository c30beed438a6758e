"""A visitor who allowed it and is elsewhere is notified when a run ends, and others are never asked."""

from typing import TYPE_CHECKING

from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server
from tests.browser.studio import Studio, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

RECORD = """
window.told = [];
window.asked = 0;
window.elsewhere = true;
document.hasFocus = () => !window.elsewhere;
const Shown = window.Notification;
window.Notification = class extends Shown {
  constructor(title, options) {
    super(title, options);
    window.told.push([title, options.body, options.tag, options.renotify]);
  }
  static requestPermission() { window.asked += 1; return Shown.requestPermission(); }
};
"""
"""Notes the notifications, and the requests to allow them; the visitor is `elsewhere` until a test says otherwise."""


def opened(visit: Visit, url: str, *, locale: str = "en", allowed: bool = False) -> "tuple[Page, Studio]":
    """A page that records its notifications, in a tab of its own because it records them for good."""
    page = visit("about:blank", new_tab=True, locale=locale)
    if allowed:
        page.context.grant_permissions(["notifications"], origin=url)
    page.add_init_script(RECORD)
    page.goto(url)
    return page, Studio(page)


def test_the_end_of_a_song_and_of_a_failure_are_told_if_the_visitor_allowed_it(server: Server, visit: Visit) -> None:
    words = PageText("en")
    page, studio = opened(visit, server.url, allowed=True)
    studio.ask(seconds=1, steps=1)
    studio.generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    # The browser would show one; the visitor has not asked for it.
    assert page.evaluate("() => [window.told, window.asked]") == [[], 0]
    page.get_by_label(words("notify")).check()
    page.reload()
    studio = Studio(page)
    assert page.get_by_label(words("notify")).is_checked()
    studio.write("caption", "rain again")
    studio.generate()
    wait_until(lambda: len(page.evaluate("() => window.told")) == 1)
    ((title, body, tag, again),) = page.evaluate("() => window.told")
    assert (title, tag, again) == (words("title"), "acestep", True)
    assert body.startswith(words.texts["stage_finished"].partition("{")[0])
    studio.wait_until_ready()
    studio.write("caption", "")
    studio.generate()
    wait_until(lambda: len(page.evaluate("() => window.told")) == 2)
    assert words("stage_failed") in page.evaluate("() => window.told")[1][1]
    # A visitor who looks at the page sees the end there.
    page.evaluate("() => { window.elsewhere = false; }")
    studio.wait_until_ready()
    studio.generate()
    studio.wait_until_ready()
    page.evaluate("() => { window.elsewhere = true; }")
    page.get_by_label(words("notify")).uncheck()
    studio.write("caption", "rain once more")
    studio.generate()
    studio.control("progress").locator(".finished").wait_for()
    studio.wait_until_ready()
    assert len(page.evaluate("() => window.told")) == 2


def test_a_browser_that_refuses_is_asked_only_by_a_click_and_the_page_says_so(server: Server, visit: Visit) -> None:
    words = PageText("ko")
    page, _ = opened(visit, server.url, locale="ko")
    box = page.get_by_label(words("notify"))
    assert (box.is_checked(), page.evaluate("() => window.asked")) == (False, 0)
    page.context.clear_permissions()
    page.evaluate("() => { Notification.requestPermission = async () => { window.asked += 1; return 'denied'; }; }")
    box.click()
    page.get_by_text(words("notify_refused")).wait_for()
    assert (box.is_checked(), page.evaluate("() => window.asked")) == (False, 1)
