"""The page's settings are the plan of the card, whatever the card, and say so when they cannot be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.knobs import Variant
from acestep.tiers import TierTable, load_tiers
from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server, plan, serving
from tests.browser.studio import Studio, wait_until
from tests.guides import reaching, with_tiers, without_lm

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


READ = """names => names.map((name) => {
  const input = document.querySelector(`div#${name} input`);
  return input.type === "checkbox" ? input.checked : input.value;
})"""
"""What boxes and dropdowns show, read in one piece."""


def settings_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the page has to show of a plan, in boxes and dropdowns."""
    streamed = document["offload"].startswith("stream")
    cpu, dit = BOXES[document["offload"]]
    return {
        "init-lm": document["init_lm"],
        "lm": document["lm"],
        "backend": label(document["backend"]),
        "offload-cpu": cpu,
        "offload-dit": dit,
        "offload-stream": label(document["offload"] if streamed else "none"),
        "quantization": label(document["quantization"], "quantization"),
        "lm-quantization": label(document["lm_quantization"], "lm_quantization"),
        "attention": label(document["attention"]),
        "compile": document["compile"],
    }


def choices_of(document: dict[str, Any]) -> tuple[bool, list[str], list[str]]:
    """What the page has to offer: whether the language model can be loaded, the models, and what runs them."""
    models = document["lm_models"]
    return bool(models), models, [label(name) for name in document["backends_allowed"]]


def shows(studio: Studio, document: dict[str, Any]) -> bool:
    """Whether the settings are those of a plan; they are on the second tab, which is open."""
    wanted = settings_of(document)
    return studio.page.evaluate(READ, list(wanted)) == list(wanted.values()) and (
        studio.enabled("init-lm"),
        studio.choices("lm"),
        studio.choices("backend"),
    ) == choices_of(document)


def shows_the_plan_of(size: int, studio: Studio) -> None:
    """Compare the settings with a card's plan. Other sizes are looked at in `tests/unit/test_ui_page.py`."""
    document = plan(size)
    studio.turn_to(1)
    assert shows(studio, document)
    panel = studio.text("card-panel")
    assert document["tier"] in panel
    assert document["evidence"]["frontier"]["kind"] in panel


def test_every_default_and_choice_is_the_plan_of_a_large_card(tmp_path: Path, visit: Visit, port: str) -> None:
    with serving(tmp_path, "--port", port, vram=24) as server:
        shows_the_plan_of(24, Studio(visit(server.url)))


SHORT = {"1": 480, "2": 300, "4": 120, "8": 60}
"""The longest song in seconds for each batch."""


def of_short_songs(table: TierTable) -> TierTable:
    """A table of short songs, with nothing from which longer ones could be predicted, and without language models."""
    tiers = table.variants[Variant.TURBO].tiers
    short = with_tiers(table, *(without_lm(reaching(tier, SHORT)) for tier in tiers))
    entry = msgspec.structs.replace(short.variants[Variant.TURBO], memory_model={})
    return msgspec.structs.replace(short, variants={**short.variants, Variant.TURBO: entry})


def test_a_table_of_short_songs_without_language_models_limits_the_length_by_the_batch_and_offers_no_thinking(
    tmp_path: Path, visit: Visit, port: str
) -> None:
    path = tmp_path / "tiers.json"
    path.write_bytes(msgspec.json.encode(of_short_songs(load_tiers())))
    with serving(tmp_path, "--port", port, vram=24, table=path) as server:
        studio = Studio(visit(server.url))
        for batch, longest in reversed(SHORT.items()):
            studio.set("batch", int(batch))
            studio.page.wait_for_function(
                f"() => document.querySelector('div#duration input[type=range]').max === '{longest}'"
            )
        for tab, box in enumerate(("think", "init-lm")):
            studio.turn_to(tab)
            assert not studio.checked(box)
            assert not studio.enabled(box)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, port: str) -> Iterator[Server]:
    """A server for a card of 4 GiB, where many wishes are too much."""
    with serving(tmp_path_factory.mktemp("small"), "--port", port, vram=4) as running:
        yield running


def test_every_default_and_choice_is_the_plan_of_a_small_card(small: Server, visit: Visit) -> None:
    shows_the_plan_of(4, Studio(visit(small.url)))


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
    wait_until(lambda: shows(studio, document))


def test_every_tier_can_be_tried_and_shows_its_own_plan(server: Server, visit: Visit) -> None:
    studio = Studio(visit(server.url))
    studio.turn_to(1)
    own, *others = studio.choices("tier")
    tiers = load_tiers().variants[Variant.TURBO].tiers
    assert len(others) == len(tiers)
    for choice, tier in zip(others, tiers, strict=True):
        studio.choose("tier", choice)
        assert tier.id in choice
        document = plan(tier.certified_gib)
        wait_until(lambda wanted=document: shows(studio, wanted))
    studio.choose("tier", own)
    wait_until(lambda: shows(studio, plan(8)))
