"""The page's settings are the plan of the card, whatever the card, and say so when they cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Visit
from tests.browser.serving import ROOT, Server, acestep, plan, serving
from tests.browser.studio import Studio

SIZES = (4, 6, 8, 12, 16, 20, 24)
BOXES = {"none": (False, False, False), "cpu": (True, False, False), "cpu+dit": (True, True, False)}


def named(value: str | None) -> str:
    return value or "none"


def settings_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the page has to show of a plan."""
    return {
        "init-lm": (document["init_lm"], bool(document["lm_models"])),
        "lm": document["lm"],
        "lm choices": document["lm_models"],
        "backend": document["backend"],
        "backend choices": document["backends_allowed"],
        "offload": BOXES.get(document["offload"], (False, False, True)),
        "quantization": named(document["quantization"]),
        "lm-quantization": named(document["lm_quantization"]),
        "attention": document["attention"],
        "compile": document["compile"],
    }


def shown(studio: Studio) -> dict[str, Any]:
    """What the page shows."""
    boxes = ("offload-cpu", "offload-dit", "offload-stream")
    return {
        "init-lm": (studio.checked("init-lm"), studio.enabled("init-lm")),
        "lm": studio.chosen("lm"),
        "lm choices": studio.choices("lm"),
        "backend": studio.chosen("backend"),
        "backend choices": studio.choices("backend"),
        "offload": tuple(studio.checked(box) for box in boxes),
        **{name: studio.chosen(name) for name in ("quantization", "lm-quantization", "attention")},
        "compile": studio.checked("compile"),
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_default_and_choice_is_the_plan_of_the_card(size: int, tmp_path: Path, visit: Visit) -> None:
    with serving(tmp_path, vram=size) as server:
        studio = Studio(visit(server.url))
        document = plan(size)
        assert shown(studio) == settings_of(document)
        panel = studio.text("card-panel")
        assert document["tier"] in panel
        assert document["evidence"]["frontier"]["kind"] in panel
