"""Everyone can use the page: contrast, names and roles by WCAG 2 A and AA in every state, and the keyboard alone."""

from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server
from tests.browser.states import states
from tests.browser.studio import Studio

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = find_spec("axe_playwright_python")
SCHEMES = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}
"""What axe-core looks at in each scheme of colours: everything in one, and in the other what depends on colours."""

VIOLATIONS = """
async (runOnly) => {
  const found = await axe.run(document, {runOnly, resultTypes: ["violations"]});
  return found.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 200)} ${
    node.any.map((check) => check.message).join(" ").slice(0, 200)}`));
}
"""


def load_axe(page: "Page") -> None:
    """Bring axe-core into the page, which is still from then on."""
    assert AXE is not None
    assert AXE.origin is not None
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate((Path(AXE.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
        # Colours that are on their way from one to another are those of no scheme.
        page.add_style_tag(content="* { transition: none !important; animation: none !important; }")


def violations(page: "Page") -> list[str]:
    """What axe-core finds on the page as it is, in light and in dark."""
    load_axe(page)
    found: list[str] = []
    for scheme, rules in SCHEMES.items():
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
        found += [f"{scheme} {violation}" for violation in page.evaluate(VIOLATIONS, rules)]
    page.evaluate("() => document.body.classList.remove('dark')")
    return found


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed here (pip install axe-playwright-python)")
def test_no_state_of_the_page_violates_wcag_2_aa(server: Server, visit: Visit) -> None:
    studio = Studio(visit(server.url))
    found = {state: violations(studio.page) for state in states(studio)}
    assert len(found) == 6
    assert {state: one for state, one in found.items() if one} == {}


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed here (pip install axe-playwright-python)")
def test_buttons_keep_their_contrast_under_the_mouse(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    Studio(page)
    load_axe(page)
    found: dict[str, list[str]] = {}
    for scheme, button in product(SCHEMES, ("generate", "plan", "like", "examples button")):
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
        page.locator(f"#{button}").first.hover()
        found[f"{scheme} {button}"] = page.evaluate(VIOLATIONS, SCHEMES["dark"])
    assert {where: wrong for where, wrong in found.items() if wrong} == {}


REACHED = """
() => {
  const at = document.activeElement;
  const seen = getComputedStyle(at);
  const place = at.closest("[id]:not([id^=html-])")?.id ?? "";
  const ring = parseFloat(seen.outlineWidth) > 0 && seen.outlineStyle !== "none";
  const around = at.closest(".outline");
  // Where a list has just closed, nothing has it.
  if (at === document.body) return ["", true];
  return [place, ring || (around !== null && parseFloat(getComputedStyle(around).outlineWidth) > 0)];
}
"""
"""The control that has the keyboard, and whether it is seen."""


def test_the_keyboard_alone_reaches_everything_visibly_and_makes_music(server: Server, visit: Visit) -> None:
    studio = Studio(visit(server.url))
    studio.open_everything()
    studio.page.get_by_role("tab").first.focus()
    reached: dict[str, bool] = {}
    for _ in range(90):
        studio.page.keyboard.press("Tab")
        name, is_seen = studio.page.evaluate(REACHED)
        reached[name] = reached.get(name, True) and is_seen
        if name == "generate":
            break
    names = ("examples", "like", "caption", "lyrics", "instrumental", "think", "duration", "batch", "language", "bpm")
    names += ("task", "source-audio", "reference-audio", "seed", "steps", "audio-format", "generate")
    assert [name for name in names if not any(name in place for place in reached)] == []
    assert [name for name, is_seen in reached.items() if not is_seen] == []
    studio.control("caption").locator("textarea").focus()
    studio.press_to_generate()
    studio.page.get_by_role("alert").get_by_text(PageText("en")("failed_caption")).wait_for()
