"""How long songs take under a plan: whose seconds are shown, how far they reach, and what own runs change."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.cli.show_times import faster_lines
from acestep.evidence import Evidence, EvidenceKind
from acestep.hardware.card import CPU, Card, CardKind, simulated_card
from acestep.knobs import Backend, Offload
from acestep.limits import own_runs
from acestep.limits.own_runs import MOST_ENTRIES, MOST_RUNS, OwnTimes, own_times, ratios_for, ratios_of, with_run
from acestep.limits.plan import Overrides, Plan, resolve
from acestep.limits.song_time import (
    NOT_RANKED,
    base_of,
    cards_of,
    is_own_card,
    planned_times,
    stages_at,
    thinking_of,
)
from acestep.locale_text import LANGUAGES
from acestep.request import Request
from acestep.result import Result
from acestep.song import DecodePath
from acestep.song_times import LENGTHS_S, CardTimes, OtherWay, ThinkTime, TierTimes, at_length
from acestep.stage import Stage, StageReport
from acestep.ui.views import card_html
from acestep.ui.words import PageText
from acestep.units import GIB, duration_range
from calibrate.timing.cards import CardSpeed, known_cards
from tests import acestep_command
from tests.planned import TABLE

command = acestep_command.command


def card_times(name: str, scale: float) -> CardTimes:
    return CardTimes(
        card=name,
        typical=True,
        offload=Offload.CPU,
        quantization=None,
        stages={
            Stage.ENCODE: (0.1 * scale, 0.1 * scale),
            Stage.DENOISE: (1.0 * scale, 4.0 * scale),
            Stage.DECODE: (0.5 * scale, 2.0 * scale),
        },
        thinking=tuple(
            ThinkTime(lm=lm, backend=backend, lm_quantization=None, seconds=(2.0 * scale * slow, 8.0 * scale * slow))
            for lm, slow in (("0.6B", 1.0), ("1.7B", 1.1))
            for backend, slow in ((Backend.PT, slow * 3), (Backend.VLLM, slow))
        ),
    )


TIMES = TierTimes(
    evidence=Evidence(kind=EvidenceKind.ESTIMATED, record=""),
    made_from="sha256:1",
    cards=(card_times("RTX 4070", 1.0), card_times("RTX 3060", 2.0)),
    ways=(
        OtherWay(offload=Offload.CPU, quantization=None, times_as_long=(1.0, 1.0), bus_bytes=10**9),
        OtherWay(offload=Offload.CPU_DIT, quantization=None, times_as_long=(1.01, 1.1), bus_bytes=5 * 10**9),
        OtherWay(offload=Offload.STREAM, quantization=None, times_as_long=(1.5, 1.9), bus_bytes=28 * 10**9),
    ),
)


def plan_of(name: str = "simulated", size: float = 16, **wishes: Any) -> Plan:
    card = Card(kind=CardKind.CUDA, name=name, total_bytes=int(size * GIB), capability=(8, 6))
    return resolve(card, TABLE, Overrides(**{"offload": Offload.CPU, "lm": "0.6B", **wishes}))


def known(plan: Plan) -> dict[str, TierTimes]:
    return {plan.tier: TIMES}


@given(st.floats(0.1, 1000), st.floats(0, 1000), st.floats(1, 600))
def test_the_line_through_both_lengths_meets_them_and_is_never_below_nothing(a: float, b: float, length: float) -> None:
    assert at_length((a, b), LENGTHS_S[0]) == pytest.approx(a)
    assert at_length((a, b), LENGTHS_S[1]) == pytest.approx(b)
    assert at_length((a, b), length) >= 0


def test_the_own_card_of_a_plan_is_used_and_all_of_the_tier_where_its_speed_is_not_known() -> None:
    own, other = plan_of("NVIDIA GeForce RTX 3060"), plan_of("NVIDIA GeForce RTX 9990")
    one, all_of_tier = planned_times(own, known(own)), planned_times(other, known(other))
    assert one is not None
    assert all_of_tier is not None
    assert one.cards == ("RTX 3060",)
    assert all_of_tier.cards == ("RTX 4070", "RTX 3060")
    for narrow, wide in zip(one.songs, all_of_tier.songs, strict=True):
        assert wide.without_lm.least_s < narrow.without_lm.least_s
        assert wide.without_lm.most_s == narrow.without_lm.most_s
        assert narrow.with_lm is not None
        assert narrow.with_lm.least_s > narrow.without_lm.least_s
    assert one.evidence is one.evidence_with_lm is EvidenceKind.ESTIMATED


@pytest.mark.parametrize("form", ["Ti", "SUPER", "Laptop GPU", "with Max-Q Design", "D", "limited to 16 GiB"])
def test_a_card_in_another_form_has_the_times_of_its_tier(form: str) -> None:
    own = plan_of(f"NVIDIA GeForce RTX 3060 {form}")
    times = planned_times(own, known(own))
    assert times is not None
    assert times.cards == ("RTX 4070", "RTX 3060")


def test_a_size_in_a_name_of_the_table_is_that_of_the_card() -> None:
    listed = msgspec.structs.replace(TIMES, cards=(card_times("A100 40GB", 1.0), *TIMES.cards))
    for name, size, own in (("NVIDIA A100-SXM4-40GB", 40, True), ("NVIDIA A100-SXM4-80GB", 80, False)):
        plan = plan_of(name, size)
        times = planned_times(plan, {plan.tier: listed})
        assert times is not None
        assert (times.cards == ("A100 40GB",)) is own


@given(st.sampled_from(known_cards()), st.sampled_from(known_cards()), st.booleans())
def test_a_card_has_the_times_of_a_listed_one_of_its_size_only(card: CardSpeed, like: CardSpeed, same: bool) -> None:
    """A table with sizes, and cards such as the RTX 4090 that was given 48 GB."""
    size = card.vram_gib if same else like.vram_gib
    sized = msgspec.structs.replace(card_times(card.name, 1.0), vram_gib=card.vram_gib)
    plan = plan_of(re.sub(r" ?\d+GB", "", card.name), size)
    assert is_own_card(plan, sized) is (size == card.vram_gib)


def test_cards_before_ampere_have_no_times_but_those_of_own_runs() -> None:
    """The table has none of them: they compute in another type."""
    turing = Card(kind=CardKind.CUDA, name="NVIDIA GeForce RTX 3060", total_bytes=16 * GIB, capability=(7, 5))
    plan = msgspec.structs.replace(resolve(turing, TABLE, Overrides(offload=Offload.CPU)), lm=None)
    assert planned_times(plan, known(plan)) is None
    ratios = ratios_of(plan, TIMES, *run_of(plan, 3.0))
    times = planned_times(plan, known(plan), ratios_for(plan, TIMES, with_run(OwnTimes(), plan, TIMES, ratios)))
    assert times is not None
    assert times.evidence is EvidenceKind.MEASURED


def test_nothing_is_said_where_nothing_is_known() -> None:
    plan = plan_of()
    assert planned_times(plan, {}) is None
    assert planned_times(plan_of(quantization="int8"), known(plan)) is None
    assert planned_times(resolve(CPU, TABLE), {"tier1": TIMES}) is None


def test_only_choices_that_differ_by_a_fifth_are_ranked_and_the_others_tell_what_they_move() -> None:
    plan = plan_of()
    times = planned_times(plan, known(plan))
    assert times is not None
    found = {choice.choice: choice for choice in times.choices}
    assert found["0.6B on pt" if plan.backend is Backend.VLLM else "0.6B on vllm"].times_as_long is not None
    assert found["offload stream, unquantized"].times_as_long == 1.5
    close = found["offload cpu+dit, unquantized"]
    assert (close.times_as_long, close.bus_bytes) == (None, 5 * 10**9)
    for choice in times.choices:
        assert choice.times_as_long is None or not NOT_RANKED < choice.times_as_long < 1 / NOT_RANKED


def test_faster_choices_are_told_for_each_tier() -> None:
    plan = plan_of(lm="1.7B", backend="pt")
    lines = list(faster_lines([(plan, planned_times(plan, known(plan))), (plan, None)]))
    assert len(lines) == 1
    assert lines[0].startswith(f"{plan.tier}: faster than 1.7B on pt: ")
    assert "0.6B on vllm in 0.3 times" in lines[0]
    assert "estimated" in lines[0]


def run_of(plan: Plan, ratio: float, *, songs: int = 1, steps: int = 0, **stages: float) -> tuple[Request, Result]:
    """A request of 120 s and its result, whose stages took `ratio` times the estimate, or that of their name."""
    asked = Request(caption="x", duration_s=120, batch=songs, steps=steps, think=True)
    base = base_of(cards_of(plan, TIMES))
    reports = [
        StageReport(
            name=stage,
            seconds=seconds * stages.get(stage, ratio) * (1 if stage == Stage.ENCODE else songs),
            songs_per_pass=1,
            peak_allocated_bytes=0,
            peak_reserved_bytes=0,
        )
        for stage, seconds in stages_at(base, 120, thinking_of(plan, base)).items()
    ]
    return asked, Result(
        request=asked,
        songs=(None,) * songs,  # type: ignore[arg-type]  # only counted
        stages=tuple(reports),
        songs_per_pass=1,
        decode_path=DecodePath.GPU,
        warnings=(),
    )


@settings(max_examples=30)
@given(st.floats(0.05, 20), st.integers(1, 4))
def test_own_runs_replace_the_estimate_whatever_their_batch(ratio: float, songs: int) -> None:
    plan = plan_of("RTX 3060")
    found = ratios_of(plan, TIMES, *run_of(plan, ratio, songs=songs))
    assert set(found) == {Stage.THINK, Stage.ENCODE, Stage.DENOISE, Stage.DECODE}
    assert all(value == pytest.approx(ratio, rel=0.01) for value in found.values())
    own = ratios_for(plan, TIMES, with_run(OwnTimes(), plan, TIMES, found))
    before, after = planned_times(plan, known(plan)), planned_times(plan, known(plan), own)
    assert before is not None
    assert after is not None
    assert after.evidence is after.evidence_with_lm is EvidenceKind.MEASURED
    for estimated, measured in zip(before.songs, after.songs, strict=True):
        likely = estimated.without_lm.least_s / 0.75 * ratio
        assert measured.without_lm.least_s <= likely * 1.02
        assert measured.without_lm.most_s >= likely * 0.98


def test_a_run_that_cannot_be_compared_teaches_nothing() -> None:
    plan = plan_of("RTX 3060")
    asked, result = run_of(plan, 1.0, steps=20)
    assert Stage.DENOISE not in ratios_of(plan, TIMES, asked, result)
    asked, result = run_of(plan, 1.0)
    on_cpu = msgspec.structs.replace(result, decode_path=DecodePath.CPU)
    assert ratios_of(plan, TIMES, asked, on_cpu) == {}
    assert ratios_of(plan, None, asked, result) == {}
    words_only = msgspec.structs.replace(asked, thinking=msgspec.structs.replace(asked.thinking, codes=False))
    assert Stage.THINK not in ratios_of(plan, TIMES, words_only, result)
    slow = run_of(plan, 1.0, decode=1e6)
    assert set(ratios_of(plan, TIMES, *slow)) == {Stage.THINK, Stage.ENCODE, Stage.DENOISE}


def test_one_slow_run_among_several_changes_nothing_and_the_file_stays_small() -> None:
    plan, own = plan_of("RTX 3060"), OwnTimes()
    for ratio in (1.0, 1.0, 9.0, *[1.0] * 40):
        own = with_run(own, plan, TIMES, {Stage.DENOISE: ratio})
        assert len(own.runs[0].ratios[Stage.DENOISE]) <= MOST_RUNS
    for number in range(60):
        other = plan_of(f"card {number}")
        own = with_run(own, other, TIMES, {Stage.DENOISE: 1.0})
    assert len(own.runs) <= MOST_ENTRIES
    newer = msgspec.structs.replace(TIMES, made_from="sha256:2")
    last = plan_of("card 59")
    assert ratios_for(last, TIMES, own)
    assert not ratios_for(last, newer, own), "the estimate is another one now"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"runs": [{}]}', '{"runs": [], "more": 1}', "\0"])
def test_a_damaged_file_of_own_times_is_left_out_with_a_sentence(tmp_path: Path, damage: str) -> None:
    (tmp_path / own_runs.OWN_TIMES_FILE).write_text(damage, encoding="utf-8")
    own, problem = own_times(tmp_path)
    assert own == OwnTimes()
    assert own_runs.OWN_TIMES_FILE in problem
    assert own_times(tmp_path / "absent") == (OwnTimes(), "")


def test_a_run_is_kept_beside_the_weights_and_used_by_the_next_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("RTX 3060")
    monkeypatch.setattr(own_runs, "checkpoints_dir", lambda: tmp_path / "weights")
    monkeypatch.setattr(own_runs, "known_times", known)
    own_runs.keep_own_run(plan, *run_of(plan, 2.0))
    assert list(tmp_path.iterdir()) == [], "no folder is made for it"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / own_runs.OWN_TIMES_FILE).write_text("damaged")
    for _ in range(2):
        own_runs.keep_own_run(plan, *run_of(plan, 2.0))
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [own_runs.OWN_TIMES_FILE]
    ratios, problem = own_runs.own_ratios(plan)
    assert problem == ""
    assert ratios[Stage.DENOISE] == pytest.approx((2.0, 2.0))
    other = msgspec.structs.replace(plan, card=msgspec.structs.replace(plan.card, imagined=True))
    own_runs.keep_own_run(other, *run_of(other, 4.0))
    assert own_runs.own_ratios(plan)[0] == ratios


def test_own_runs_on_a_processor_give_it_times_that_no_table_has() -> None:
    plan = msgspec.structs.replace(resolve(CPU, TABLE), lm=None)
    ratios = ratios_of(plan, TIMES, *run_of(plan, 30.0))
    own = ratios_for(plan, TIMES, with_run(OwnTimes(), plan, TIMES, ratios))
    times = planned_times(plan, known(plan), own)
    assert times is not None
    assert times.cards == (CPU.name,)
    assert times.evidence is EvidenceKind.MEASURED


def test_the_commands_show_times_where_the_table_has_them(command: acestep_command.Command, tmp_path: Path) -> None:
    document = json.loads(acestep_command.FIXTURE.read_text())
    tier = resolve(simulated_card(16), TABLE).tier
    assert json.loads(command("plan", "--vram", "16", "--json").out)["times"] is None
    assert "not known" in command("plan", "--vram", "16").out
    document["variants"]["turbo"]["times"] = {tier: msgspec.to_builtins(TIMES)}
    table = tmp_path / "generated_tiers.json"
    table.write_text(json.dumps(document))
    asked = ("plan", "--vram", "16", "--offload", "cpu", "--lm", "0.6B")
    plan = json.loads(command(*asked, "--json", table=table).out)
    assert [song["duration_s"] for song in plan["times"]["songs"]] == list(LENGTHS_S)
    assert plan["times"]["evidence"] == "estimated"
    page = command(*asked, table=table).out
    assert "estimated" in page
    assert "RTX 4070, RTX 3060" in page
    assert tier in json.loads(command("tiers", "--json", table=table).out)["times"]
    for form in ((), ("--markdown",)):
        assert "4 s to 18 s" in command("tiers", *form, table=table).out


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_s_panel_shows_both_lengths_and_how_they_were_found(language: str) -> None:
    plan, words = plan_of("RTX 3060"), PageText(language)
    panel = card_html(plan, plan.card, words, planned_times(plan, known(plan)))
    for length in LENGTHS_S:
        assert words("song_takes", duration=words.duration(length)) in panel
    assert words("evidence_estimated") in panel
    assert "RTX 3060" in panel
    quick = planned_times(plan_of("RTX 3060", lm="1.7B", backend="pt"), known(plan))
    assert quick is not None
    assert words("faster") in card_html(plan, plan.card, words, quick)
    without = card_html(plan, plan.card, words)
    assert words("time_is_of") in panel
    assert words("time_is_of") not in without


@given(st.floats(0.01, 5000), st.floats(1, 10))
def test_a_range_is_rounded_outwards_and_its_ends_differ(least: float, times: float) -> None:
    first, last = duration_range(least, least * times * 1.01, told=str).split(" to ")
    assert float(first) <= least + 1e-6
    assert float(last) >= least * times * 1.01 - 1e-6
    assert float(first) < float(last)
