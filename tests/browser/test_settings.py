"""The page's settings are the plan of the card, whatever the card, and say so when they cannot be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.knobs import Variant
from acestep.tiers import load_tiers
from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server, plan, serving
from tests.browser.studio import Studio, wait_until
from tests.guides import with_tiers, without_lm

SIZES = (4, 24)
"""Cards that a page starts for: the smallest and the largest. The shared server's has 8 GiB; the pages
of other sizes are looked at without a browser, in `tests/unit/test_ui_page.py`.
"""
BOXES = {
    "none": (False, False),
    "cpu": (True, False),
    "cpu+dit": (True, True),
    "stream": (True, True),
    "stream+encoders": (True, True),
}


def label(choice: str | None, of: str | None = None) -> str:
    """A choice as the page words it."""
    return PageText("en").choice(choice or "none", of=of)


def settings_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the page has to show of a plan."""
    streamed = document["offload"].startswith("stream")
    return {
        "init-lm": (document["init_lm"], bool(document["lm_models"])),
        "lm": document["lm"],
        "lm choices": document["lm_models"],
        "backend": label(document["backend"]),
        "backend choices": [label(name) for name in document["backends_allowed"]],
        "offload": (*BOXES[document["offload"]], label(document["offload"] if streamed else "none")),
        "quantization": label(document["quantization"], "quantization"),
        "lm-quantization": label(document["lm_quantization"], "lm_quantization"),
        "attention": label(document["attention"]),
        "compile": document["compile"],
    }


def shown(studio: Studio) -> dict[str, Any]:
    """What the page shows; its settings are on the second tab."""
    studio.turn_to(1)
    return {
        "init-lm": (studio.checked("init-lm"), studio.enabled("init-lm")),
        "lm": studio.chosen("lm"),
        "lm choices": studio.choices("lm"),
        "backend": studio.chosen("backend"),
        "backend choices": studio.choices("backend"),
        "offload": (studio.checked("offload-cpu"), studio.checked("offload-dit"), studio.chosen("offload-stream")),
        **{name: studio.chosen(name) for name in ("quantization", "lm-quantization", "attention")},
        "compile": studio.checked("compile"),
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_default_and_choice_is_the_plan_of_the_card(size: int, tmp_path: Path, visit: Visit, port: str) -> None:
    with serving(tmp_path, "--port", port, vram=size) as server:
        studio = Studio(visit(server.url))
        document = plan(size)
        assert shown(studio) == settings_of(document)
        panel = studio.text("card-panel")
        assert document["tier"] in panel
        assert document["evidence"]["frontier"]["kind"] in panel


def test_without_any_language_model_in_the_table_its_box_is_off_and_cannot_be_ticked(
    tmp_path: Path, visit: Visit, port: str
) -> None:
    table = load_tiers()
    bare = with_tiers(table, *(without_lm(tier) for tier in table.variants[Variant.TURBO].tiers))
    path = tmp_path / "tiers.json"
    path.write_bytes(msgspec.json.encode(bare))
    with serving(tmp_path, "--port", port, vram=24, table=path) as server:
        studio = Studio(visit(server.url))
        for tab, box in enumerate(("think", "init-lm")):
            studio.turn_to(tab)
            assert not studio.checked(box)
            assert not studio.enabled(box)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, port: str) -> Iterator[Server]:
    """A server for a card of 4 GiB, where many wishes are too much."""
    with serving(tmp_path_factory.mktemp("small"), "--port", port, vram=4) as running:
        yield running


WISHES = [
    pytest.param(Studio.tick, "offload-cpu", False, "--offload none", id="no offload"),
    pytest.param(Studio.tick, "offload-dit", False, "--offload cpu", id="offload without the transformer"),
    pytest.param(
        Studio.choose, "quantization", label("fp8"), "--quantization fp8", id="weights the card cannot compute with"
    ),
    pytest.param(Studio.choose, "attention", label("flash"), "--attention flash", id="kernels that are not installed"),
]


@pytest.mark.parametrize(("wish", "control", "value", "option"), WISHES)
def test_a_wish_is_granted_or_taken_back_with_the_sentence_of_the_command_line(
    wish: Callable[..., None], control: str, value: Any, option: str, small: Server, visit: Visit
) -> None:
    studio = Studio(visit(small.url))
    studio.turn_to(1)
    wish(studio, control, **({"on": value} if wish is Studio.tick else {"choice": value}))
    document = plan(4, *option.split())
    wait_until(lambda: studio.messages() == document["warnings"])
    # A message is on its way before the answer of the event is.
    wait_until(lambda: all(sentence in studio.text("warnings") for sentence in document["warnings"]))
    wait_until(lambda: shown(studio) == settings_of(document))


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_the_length_ends_where_the_batch_s_frontier_ends(batch: int, small: Server, visit: Visit) -> None:
    studio = Studio(visit(small.url))
    studio.set("batch", batch)
    longest = plan(4)["frontier"]["without_lm"][str(batch)]
    studio.page.wait_for_function(f"() => document.querySelector('div#duration input[type=range]').max === '{longest}'")


def test_every_tier_can_be_tried_and_shows_its_own_plan(server: Server, visit: Visit) -> None:
    studio = Studio(visit(server.url))
    studio.turn_to(1)
    own, *others = studio.choices("tier")
    tiers = load_tiers().variants[Variant.TURBO].tiers
    assert len(others) == len(tiers)
    for choice, tier in zip(others, tiers, strict=True):
        studio.choose("tier", choice)
        assert tier.id in choice
        expected = settings_of(plan(tier.certified_gib))
        wait_until(lambda wanted=expected: shown(studio) == wanted)
    studio.choose("tier", own)
    wait_until(lambda: shown(studio) == settings_of(plan(8)))
