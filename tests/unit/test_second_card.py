"""A language model on a card of its own: planned, opened and used there, and the songs are the same."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import acestep
from acestep.devices.accelerator import Accelerator
from acestep.devices.open import look_with_torch
from acestep.engine.second_cards import SecondCards
from acestep.engine.service import Service
from acestep.errors import NotEnoughMemoryError
from acestep.hardware.card import CPU, Card, simulated_card
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE, look
from acestep.knobs import LM_MODELS, Backend, Knobs, Offload, Variant
from acestep.limits.machine import plan_here
from acestep.limits.plan import Overrides, exact, resolve
from acestep.limits.room import needed_bytes, question_of, songs_room
from acestep.limits.second_card import lm_bytes_on, models_on
from acestep.request import Request
from acestep.thinking import Thinking
from acestep.tiers import data_file, load_tiers
from acestep.units import GIB
from tests import acestep_command
from tests.acestep_command import Command
from tests.small_card import SmallCard
from tests.two_cards import LARGE, SMALL, Driver

command = acestep_command.command

TABLE = load_tiers()
SIZES = (4, 6, 8, 12, 16, 24)
SONG = Request(
    caption="rain", duration_s=10, seed=3, steps=1, think=True, thinking=Thinking(metas=False, caption=False)
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


@given(
    size=st.sampled_from(SIZES),
    second=st.sampled_from(SIZES),
    lm=st.sampled_from(LM_MODELS),
    variant=st.sampled_from(list(Variant)),
)
def test_each_card_has_its_own_room_and_the_plan_is_the_sum(size: int, second: int, lm: str, variant: Variant) -> None:
    card, beside = simulated_card(size), simulated_card(second)
    plan = resolve(card, TABLE, Overrides(lm=lm, variant=variant), lm_card=beside)
    alone = resolve(card, TABLE, Overrides(lm=None, variant=variant))
    assert (plan.offload, plan.quantization) == (alone.offload, alone.quantization)
    assert plan.frontier.with_lm == plan.frontier.without_lm == alone.frontier.without_lm
    fits = lm_bytes_on(beside, Knobs(lm=lm), 60.0) <= songs_room(beside, TABLE)
    assert (plan.lm == lm) == fits
    assert fits or any(beside.name in sentence for sentence in plan.warnings)
    if plan.lm is not None:
        assert (plan.lm_card, plan.backend) == (beside, Backend.PT)
    question = question_of(None, card, variant, thinks=True, lm_apart=True)
    needed = needed_bytes(TABLE.variants[variant].memory_model, plan.knobs, question)
    with_codes = question_of(None, card, variant, thinks=True)
    together = needed_bytes(TABLE.variants[variant].memory_model, plan.knobs, with_codes)
    assert needed is not None
    assert together is not None
    assert needed <= together, "the language model takes nothing of the songs' card"


@given(sizes=st.lists(st.sampled_from(SIZES), min_size=2, max_size=2).map(sorted))
def test_a_larger_second_card_runs_no_smaller_language_model(sizes: list[int]) -> None:
    small, large = (models_on(simulated_card(size), Knobs(), 60.0, TABLE.room_bytes(size)) for size in sizes)
    assert set(small) <= set(large)


def test_two_cards_of_16_gib_run_xl_and_the_largest_language_model() -> None:
    plan = resolve(simulated_card(16), TABLE, Overrides(variant=Variant.XL_TURBO), lm_card=simulated_card(16))
    assert (plan.lm, plan.init_lm) == ("4B", True)
    assert resolve(simulated_card(16), TABLE, Overrides(variant=Variant.XL_TURBO)).lm == "1.7B"


def test_the_processor_may_run_the_language_model() -> None:
    plan = resolve(simulated_card(4), TABLE, lm_card=CPU)
    assert (plan.lm, plan.lm_models, plan.lm_card) == ("0.6B", LM_MODELS, CPU)


def made(lm_card: Card | None, song_device: SmallCard, lm_device: SmallCard) -> Any:
    card = simulated_card(8)
    plan = msgspec.structs.replace(exact(card, Knobs(lm="0.6B", offload=Offload.NONE)), lm_card=lm_card)
    service = Service("tiny", here=(song_device, card), open_second=lambda _: lm_device)
    try:
        return service.generate(SONG, plan)[0]
    finally:
        service.close()


def test_the_weights_of_the_language_model_are_on_its_own_card_and_the_song_is_the_same() -> None:
    songs, second = SmallCard(free_bytes=8 * GIB), SmallCard(free_bytes=8 * GIB)
    apart = made(simulated_card(8), songs, second)
    assert "lm" not in songs.uploaded
    assert set(second.uploaded) == {"lm", "prompt"}
    both = SmallCard(free_bytes=8 * GIB)
    together = made(None, both, SmallCard())
    assert "lm" in both.uploaded
    for one, other in zip(apart.songs, together.songs, strict=True):
        assert np.array_equal(one.audio, other.audio)


def test_the_weights_stay_on_their_card_between_two_requests() -> None:
    card, songs, second = simulated_card(8), SmallCard(free_bytes=8 * GIB), SmallCard(free_bytes=8 * GIB)
    plan = msgspec.structs.replace(exact(card, Knobs(lm="0.6B")), lm_card=simulated_card(8))
    service = Service("tiny", here=(songs, card), open_second=lambda _: second)
    for _ in range(2):
        service.generate(SONG, plan)
    weights = second.uploaded.count("lm")
    service.generate(SONG, plan)
    assert second.uploaded.count("lm") == weights > 0
    service.close()


def test_too_little_free_memory_on_the_second_card_is_told_with_numbers() -> None:
    second = SmallCard(free_bytes=GIB)
    plan = msgspec.structs.replace(exact(simulated_card(8), Knobs(lm="4B")), lm_card=simulated_card(16))
    cards = SecondCards(lambda _: second)
    with pytest.raises(NotEnoughMemoryError, match=r"4B needs .* GiB, and 1\.00 GiB of simulated 16 GiB card"):
        cards.device_for(plan, simulated_card(16), "no-such-model")


@pytest.mark.parametrize("wish", ["cuda:0", "4060", SMALL.uuid])
def test_both_cards_stay_visible_and_the_songs_one_is_first(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    driver.torch()
    monkeypatch.setenv(LM_DEVICE_VARIABLE, wish)
    monkeypatch.setenv(DEVICE_VARIABLE, LARGE.uuid)
    planned = plan_here()
    found = look_with_torch()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == f"{LARGE.uuid},{SMALL.uuid}"
    assert found.lm_card is not None
    assert (found.card.uuid, found.lm_card.uuid) == (LARGE.uuid, SMALL.uuid)
    assert planned.lm_card is not None
    assert planned.lm_card.uuid == SMALL.uuid
    assert look_with_torch().lm_card == found.lm_card, "looking again finds the same two"
    assert not any("others here" in sentence for sentence in found.remarks)


def test_the_card_of_the_songs_is_no_second_card_and_an_unknown_one_is_refused(
    driver: Driver, command: Command
) -> None:
    table = data_file("generated_tiers.json")
    environment = {"CUDA_VISIBLE_DEVICES": f"{SMALL.uuid},{LARGE.uuid}"}
    os.environ.update(environment)
    plan = json.loads(command("plan", "--json", "--lm-device", "4060", table=table).out)
    assert plan["lm_card"]["uuid"] == SMALL.uuid
    assert json.loads(command("plan", "--json", "--lm-device", "4090", table=table).out)["lm_card"] is None
    assert LM_DEVICE_VARIABLE not in os.environ
    done = command("plan", "--lm-device", "RTX 9999")
    assert done.code == 2
    assert "--lm-device" in done.err


def test_python_callers_name_it_for_their_process(driver: Driver) -> None:
    plan = acestep.resolve_plan(lm_device="4060")
    assert plan.lm_card is not None
    assert plan.lm_card.uuid == SMALL.uuid == look(os.environ).lm_card.uuid  # type: ignore[union-attr]


def test_the_option_is_where_songs_are_made() -> None:
    from acestep.cli.main import cli

    for name in ("plan", "generate", "ui"):
        assert any("--lm-device" in option.opts for option in cli.commands[name].params)
    assert Path(data_file("generated_tiers.json")).is_file()


class Streams:
    """The streams of a library's cards; without a card it names that of the current one, as PyTorch does."""

    def __init__(self) -> None:
        self.asked: list[torch.device | None] = []

    def current_stream(self, device: torch.device | None = None) -> "Streams":
        self.asked.append(device)
        return self

    def record_event(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        assert event is not None


def test_a_card_waits_on_its_own_stream_although_another_is_current() -> None:
    streams: Any = Streams()
    second = torch.device("cuda", 1)
    card = Accelerator(streams, second, torch.bfloat16, grouped=True, workspace=0)
    card.wait(card.mark())
    assert streams.asked == [second, second]
