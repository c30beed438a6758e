"""The page as it is laid out, without a browser: for the card that is there, or that PyTorch finds later."""

import asyncio
from pathlib import Path

import gradio as gr
import msgspec
import pytest

from acestep.hardware.card import simulated_card
from acestep.knobs import NONE_NAMES, Offload
from acestep.limits.plan import Overrides, Plan, resolve
from acestep.tiers import LmStates, load_tiers
from acestep.ui.choices import Choices
from acestep.ui.one_server import without_servers
from acestep.ui.page import Parts, lay_out
from acestep.ui.studio import Studio
from acestep.ui.views import card_html
from acestep.ui.words import PageText

SIZES = (4, 6, 8, 12, 16, 20, 24)
WORDS = PageText("en")


def page_of(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Studio, Parts]:
    """The page of a card of this size in GiB."""
    monkeypatch.setenv("MAX_CUDA_VRAM", str(size))
    studio = Studio("turbo", Overrides(), tmp_path)

    async def laid_out() -> Parts:
        with without_servers(), gr.Blocks():
            return lay_out(WORDS, studio)

    # Outside of a loop, gradio makes one that it never closes.
    return studio, asyncio.run(laid_out())


def plan_of(size: int) -> Plan:
    return resolve(simulated_card(size), load_tiers(), Overrides())


@pytest.mark.parametrize("size", SIZES)
def test_a_card_of_every_size_has_the_page_of_its_plan(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, parts = page_of(size, tmp_path, monkeypatch)
    plan = plan_of(size)
    assert parts["init_lm"].value == plan.init_lm
    assert [value for _, value in parts["lm"].choices] == list(plan.lm_models)
    assert parts["lm"].value == plan.lm
    for name in ("quantization", "lm_quantization", "attention"):
        assert parts[name].value == (getattr(plan, name) or NONE_NAMES[0])
    assert parts["offload_cpu"].value == (plan.offload is not Offload.NONE)
    longest = plan.longest(1, lm=plan.init_lm)
    assert parts["duration"].maximum == longest
    assert plan.tier in parts["card_panel"].value
    assert parts["plan"].visible == (plan.lm is not None)


def test_batches_with_equal_songs_share_a_row_of_the_card() -> None:
    plan = plan_of(24)
    lengths = {"1": 480, "2": 480, "4": 270, "8": 60}
    frontier = msgspec.structs.replace(plan.frontier, without_lm=lengths, with_lm=lengths)
    short = msgspec.structs.replace(plan, frontier=frontier, reach=LmStates(with_lm=0, without_lm=0))
    shown = card_html(short, plan.card, WORDS)
    for batch, length in (("1–2", "8 min"), ("4", "4 min 30 s"), ("8", "1 min")):
        name = WORDS("longest", batch=batch)
        assert f'<th scope="row">{name}</th><td>{length}</td>' in shown
    assert WORDS("longest", batch=2) not in shown


def test_a_page_shows_the_card_that_pytorch_found_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio, parts = page_of(24, tmp_path, monkeypatch)
    choices = Choices(studio, WORDS, parts)
    visit, untouched = studio.sessions.of("ann"), (1, 0, parts["think"].value)
    assert choices.arrive(visit, *untouched) == {}, "nothing changes for the card that the page was made for"
    monkeypatch.setenv("MAX_CUDA_VRAM", "4")
    changes = choices.arrive(visit, *untouched)
    plan = plan_of(4)
    assert changes[parts["duration"]]["maximum"] == plan.longest(1, lm=plan.init_lm)
    assert plan.tier in changes[parts["card_panel"]]
    assert changes[parts["lm"]]["value"] == plan.lm
    assert changes[parts["init_lm"]]["value"] == plan.init_lm
