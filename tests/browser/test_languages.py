"""The page speaks the languages it says it does, on a phone too."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import Visit
from tests.browser.serving import serving
from tests.browser.studio import Studio

PHONE = {"width": 390, "height": 844}
SCRIPTS = {"ko": "[가-힣]", "ja": "[ぁ-んァ-ヶ一-龠]", "zh": "[一-龠]"}
CONTROLS = (
    ("heading", "caption", "lyrics", "duration", "batch", "seed", "steps", "task", "generate", "cancel"),
    ("tier", "init-lm", "lm", "backend", "offload-cpu", "offload-dit", "quantization", "compile", "card-panel"),
)
"""Blocks with words in them, by tab."""


@pytest.mark.parametrize("language", SCRIPTS)
def test_every_control_has_a_name_in_the_language(language: str, tmp_path: Path, visit: Visit) -> None:
    with serving(tmp_path, "--language", language) as server:
        studio = Studio(visit(server.url, locale=language, viewport=PHONE))
        script = re.compile(SCRIPTS[language])
        for tab, names in enumerate(CONTROLS):
            studio.turn_to(tab)
            assert [name for name in names if not script.search(studio.control(name).inner_text())] == []
            text = studio.page.locator("body").inner_text()
            # What a key without a translation looks like: ui.generate, label_caption, {count}, a Python value.
            assert re.findall(r"\b[a-z]+[._][a-z_.]+\b|\{\w*\}|\bNone\b|\bKeyError\b", text) == []
            assert studio.page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
