"""The page as a user sees it: controls by their names in `acestep.ui`."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

WAIT_MS = 60_000

SHORT_WAIT_MS = 2_000
"""For a step that is tried again."""

OPTIONS = "[role=listbox] [role=option]"
"""What the open dropdown offers; one at a time is open."""

FIRST = ("caption", "tier")
"""The first control of each tab: once it is there, the others are."""

RECORD_PLAYERS = """
window.players = [];
const create = document.createElement.bind(document);
document.createElement = (name, ...rest) => {
  const element = create(name, ...rest);
  if (name.toLowerCase() === "audio") window.players.push(element);
  return element;
};
"""
"""The page plays its songs through an element that it never puts into the document."""

RECORD_PROGRESS = """
() => {
  window.progress = [];
  const place = document.querySelector("#progress");
  const note = () => window.progress.push(place.innerText);
  new MutationObserver(note).observe(place, {subtree: true, childList: true, characterData: true});
}
"""


class Studio:
    """One visitor's page."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        page.set_default_timeout(WAIT_MS)
        self.control("generate").wait_for()
        # Before, the page answers to no key, and notices nothing.
        page.wait_for_function("() => window.acestepRestored")

    def turn_to(self, tab: int) -> None:
        """Open a tab by its place, and what is folded on it."""
        self.page.get_by_role("tab").nth(tab).click()
        self.control(FIRST[tab]).wait_for()
        self.open_everything()

    def open_everything(self) -> None:
        """Unfold a section; its controls are not on the page before."""
        folded = self.page.locator("button.label-wrap:not(.open):visible")
        while left := folded.count():
            folded.first.click()
            # A second click that comes before the answer to the first would fold it again.
            wait_until(lambda before=left: folded.count() < before)

    def control(self, name: str) -> "Locator":
        """A control's block."""
        return self.page.locator(f"div#{name}, button#{name}")

    def chosen(self, name: str) -> str:
        """What a dropdown shows."""
        return self.control(name).locator("input").input_value()

    def choices(self, name: str) -> list[str]:
        """What a dropdown offers; one that cannot be opened has only what it shows."""
        if not self.control(name).locator("input").is_enabled():
            return [self.chosen(name)]
        offered: list[str] = []

        def read() -> bool:
            # Read in one piece: an answer of the server may close the list between two options.
            self._open(name)
            offered[:] = self.page.locator(OPTIONS).evaluate_all(
                "all => all.map(one => one.getAttribute('aria-label'))"
            )
            return bool(offered)

        wait_until(read)
        self._close(name)
        return offered

    def choose(self, name: str, choice: str) -> None:
        """Take a dropdown's choice."""

        def take() -> bool:
            self._open(name)
            option = self.page.locator(f'{OPTIONS}[aria-label="{choice}"]')
            return _in_time(lambda: option.click(timeout=SHORT_WAIT_MS))

        wait_until(take)

    def _open(self, name: str) -> None:
        """Open a dropdown; an answer of the server that comes meanwhile closes it, and it is opened again."""

        def opened() -> bool:
            self._close(name)
            self.control(name).locator("input").click()
            return _in_time(lambda: self.page.locator(OPTIONS).first.wait_for(timeout=SHORT_WAIT_MS))

        wait_until(opened)

    def _close(self, name: str) -> None:
        # A dropdown that keeps the focus does not open at the next click.
        self.control(name).locator("input").blur()
        self.page.locator("[role=listbox]").wait_for(state="hidden")

    def checked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self.control(name).locator("input[type=checkbox]").is_checked()

    def enabled(self, name: str) -> bool:
        """Whether a box can be ticked."""
        return self.control(name).locator("input[type=checkbox]").is_enabled()

    def tick(self, name: str, *, on: bool = True) -> None:
        """Tick a box, or take the tick away; the server may put it back at once, so how it is then is not looked at."""
        if self.checked(name) != on:
            self.control(name).locator("input[type=checkbox]").click()

    def number(self, name: str) -> float:
        """The number of a slider or of a box."""
        return float(self.control(name).locator("input[type=number]").input_value())

    def longest(self, name: str) -> float:
        """Where a slider ends."""
        return float(self.control(name).locator("input[type=range]").get_attribute("max") or math.nan)

    def set(self, name: str, value: float) -> None:
        """Type a slider's number."""
        number = self.control(name).locator("input[type=number]")
        number.fill(f"{value:g}")
        number.press("Tab")

    def write(self, name: str, text: str) -> None:
        """Type into a box of text."""
        self.control(name).locator("textarea, input").first.fill(text)

    def written(self, name: str) -> str:
        """What is written in a box of text."""
        return self.control(name).locator("textarea, input").first.input_value()

    def text(self, name: str) -> str:
        """What a block says."""
        block = self.control(name)
        written = block.locator("textarea").evaluate_all("all => all.map(one => one.value)")
        return "\n".join([block.inner_text(), *written])

    def ask(self, *, seconds: float, steps: int, think: bool = False, caption: str = "rain on a tin roof") -> None:
        """Fill the form in."""
        self.turn_to(0)
        self.write("caption", caption)
        self.tick("think", on=think)
        self.set("duration", seconds)
        self.set("steps", steps)

    def generate(self) -> None:
        """Ask for a song; the program has taken the run when this returns."""
        self._run(lambda: self.control("generate").click())

    def plan(self) -> None:
        """Ask for a plan of the song; the program has taken the run when this returns."""
        self._run(lambda: self.control("plan").click())

    def press_to_generate(self) -> None:
        """Ask for a song by the keyboard."""
        self._run(lambda: self.page.keyboard.press("Control+Enter"))

    def _run(self, ask: Callable[[], None]) -> None:
        # What is said of an earlier run would be taken for what is said of this one.
        self.page.evaluate("() => document.querySelector('#progress .progress')?.classList.add('earlier')")
        ask()
        self.page.locator("#progress .progress:not(.earlier)").wait_for()

    def wait_for_song(self) -> None:
        """Wait until a song can be played."""
        self.control("song-0").locator(".play").wait_for()

    def wait_until_ready(self) -> None:
        """Wait until songs can be asked for, and nothing can be stopped."""
        wait_until(lambda: self.control("generate").is_enabled() and not self.control("cancel").is_enabled())

    def act(self, what: str, song: int = 0) -> None:
        """Click on a button of a song's card."""
        self.control(f"song-{song}").locator(f"[data-act={what}]").click()

    def downloads(self) -> list[str]:
        """The names of the files that can be kept, once there are any."""
        links = self.control("history").locator("a[download]")
        links.first.wait_for()
        return [str(name) for name in links.evaluate_all("all => all.map(one => one.download)")]

    def players(self) -> list[dict[str, Any]]:
        """The songs that the page plays."""
        found = self.page.evaluate(
            "() => window.players.map(player => ({src: player.src, seconds: player.duration, at: player.currentTime}))"
        )
        return [player for player in found if player["src"] and player["seconds"] is not None]

    def messages(self) -> list[str]:
        """The page's passing messages."""
        return self.page.locator("[data-testid=toast-text]").all_inner_texts()


def _in_time(step: Callable[[], None]) -> bool:
    """Whether a step of the browser ended before its own time limit."""
    from playwright.sync_api import TimeoutError as TooLate

    try:
        step()
    except TooLate:
        return False
    return True


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for pending updates of the server; the final check is an assertion."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.1)
