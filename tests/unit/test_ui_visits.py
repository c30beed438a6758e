"""Visits to the page: each has its own songs and its own stop button, and what it shows is safe to show."""

import re
from contextlib import suppress
from html import escape
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import InvalidInputError, MissingWeightsError, NotEnoughMemoryError, RunFailedError, UsageError
from acestep.hardware.card import CPU, simulated_card
from acestep.knobs import Knobs, Offload
from acestep.limits.guard import COEFFICIENTS, OF_AUDIO, knobs_key
from acestep.limits.plan import Plan, exact, resolve
from acestep.limits.think_memory import lm_weight_bytes
from acestep.locale_text import LANGUAGES
from acestep.request import Request
from acestep.serving.failures import FailedRun, FailureKind, MissingSourceError, failure_of
from acestep.serving.visits import RunProgress, Sessions, StoppedError, Visit, VisitSong
from acestep.thinking import Thinking
from acestep.tiers import load_tiers
from acestep.ui.cards import songs_html
from acestep.ui.outlook import guard_html, outlook
from acestep.ui.views import card_html, failure_html, progress_html, warnings_html
from acestep.ui.words import PageText
from acestep.units import GIB

WORDS = PageText("en")
EXACT = exact(simulated_card(8), Knobs(lm="0.6B"))
KEY = knobs_key(EXACT.knobs)
HOSTILE = '<img src=x onerror="alert(1)">'


def test_a_visit_has_a_name_and_an_unguessable_folder(tmp_path: Path) -> None:
    visits = Sessions(tmp_path)
    ann, bob = visits.of("ann"), visits.of("bob")
    assert visits.of("ann") is ann
    assert ann.folder.parent == bob.folder.parent == tmp_path
    assert len({ann.folder.name, bob.folder.name, visits.of("").folder.name, visits.of("").folder.name}) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", visit.folder.name) for visit in (ann, bob))


def test_only_so_many_visits_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acestep.serving.visits.MOST_SESSIONS", 2)
    visits = Sessions(tmp_path)
    first, second = visits.of("1"), visits.of("2")
    assert visits.of("1") is first
    visits.of("3")
    assert visits.of("1") is first
    assert visits.of("2") is not second


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    return Sessions(tmp_path).of("ann")


def test_a_stopped_run_ends_at_its_next_step_and_the_next_one_runs(visit: Visit) -> None:
    visit.announce()
    assert (visit.progress.stage, visit.busy) == ("waiting", True)
    with suppress(StoppedError), visit.run():
        visit.report("denoise", 1, 4)
        assert (visit.progress.stage, visit.progress.share) == ("denoise", 0.25)
        visit.stop()
        assert (visit.progress.stage, visit.progress.share, visit.busy) == ("stopping", 0.25, True)
        with pytest.raises(StoppedError):
            visit.report("denoise", 2, 4)
        assert visit.progress.stage == "stopping"
        visit.report("denoise", 2, 4)
    visit.settle()
    assert (visit.progress.stage, visit.busy) == ("stopped", False)
    visit.announce()
    with visit.run():
        visit.report("decode", 1, 2)
    visit.settle()
    assert (visit.progress.stage, visit.busy) == ("finished", False)


def test_a_run_that_waits_is_stopped_at_once_and_the_next_one_runs_however_they_overlap(visit: Visit) -> None:
    visit.announce()
    visit.stop()
    assert (visit.progress.stage, visit.busy) == ("stopped", False)
    visit.announce()
    with pytest.raises(StoppedError), visit.run():
        pass
    visit.settle()
    assert (visit.progress.stage, visit.busy) == ("waiting", True)
    with visit.run():
        visit.report("denoise", 1, 4)
    visit.settle()
    assert (visit.progress.stage, visit.busy) == ("finished", False)


def test_a_run_that_was_stopped_and_never_had_its_turn_takes_no_other_with_it(visit: Visit) -> None:
    visit.announce()
    visit.stop()
    visit.settle()
    visit.announce()
    with visit.run():
        visit.report("denoise", 1, 4)


def test_stopping_when_nothing_runs_stops_nothing(visit: Visit) -> None:
    visit.stop()
    with visit.run():
        visit.report("denoise", 1, 4)


def test_what_was_announced_and_never_had_its_turn_has_failed(visit: Visit) -> None:
    visit.announce()
    visit.settle()
    assert (visit.progress.stage, visit.busy) == ("failed", False)
    assert visit.failure == FailedRun(kind=FailureKind.NOT_STARTED)
    with pytest.raises(UsageError), visit.run():
        raise UsageError("no such song")
    assert visit.progress.stage == "failed"
    assert visit.failure == FailedRun(kind=FailureKind.INPUT, detail="no such song")
    visit.announce()
    assert visit.failure is None


ERRORS = {
    MissingWeightsError("turbo", "not found", command="acestep download turbo"): FailureKind.WEIGHTS,
    MissingSourceError("no source"): FailureKind.SOURCE,
    NotEnoughMemoryError("no memory"): FailureKind.MEMORY,
    torch.OutOfMemoryError("CUDA out of memory"): FailureKind.MEMORY,
    RuntimeError("MPS backend out of memory"): FailureKind.MEMORY,
    MemoryError(): FailureKind.MEMORY,
    UsageError("no such key"): FailureKind.INPUT,
    InvalidInputError("song.wav", "is damaged"): FailureKind.FILE,
    RunFailedError("the disk is full"): FailureKind.RUN,
    KeyError("lyrics"): FailureKind.UNEXPECTED,
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_failure_has_a_sentence_in_the_language_of_the_page(error: Exception, language: str) -> None:
    words, failure = PageText(language), failure_of(error)
    assert failure.kind is ERRORS[error]
    page = failure_html(failure, words)
    assert 'role="alert"' in page
    assert escape(words(f"failed_{failure.kind}")) in page
    if failure.kind is FailureKind.WEIGHTS:
        assert "<code>acestep download turbo</code>" in page
    if failure.kind is FailureKind.UNEXPECTED:
        assert "lyrics" not in page


@given(doings=st.lists(st.sampled_from(("announce", "stop", "settle", "run")), max_size=12))
def test_a_visit_whose_clicks_are_all_over_is_never_busy_and_its_next_run_is_its_own(doings: list[str]) -> None:
    visit = Visit(Path("out"))
    for doing in doings:
        if doing == "run":
            with suppress(StoppedError), visit.run():
                visit.report("denoise", 1, 4)
        else:
            getattr(visit, doing)()
    for _ in doings:
        visit.settle()
    assert not visit.busy
    visit.announce()
    with visit.run():
        visit.report("denoise", 1, 4)
    assert visit.progress.stage == "finished"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("stage", ["waiting", "loading", "think", "encode_audio", "encode", "denoise", "decode"])
def test_progress_names_its_stage_and_its_share(stage: str, language: str) -> None:
    words = PageText(language)
    page = progress_html(RunProgress(stage=stage, done=1, total=4), words)
    assert words(f"stage_{stage}") in page
    assert "25 %" in page
    assert progress_html(RunProgress(), words) == ""


def test_long_work_tells_its_step_its_finished_songs_and_the_time_left(visit: Visit) -> None:
    with visit.run():
        visit.report("decode", 2, 8)
        for step in range(1, 4):
            visit.report("denoise", step, 8)
        progress = visit.progress
    assert progress.left_s is not None
    page = progress_html(progress, WORDS)
    assert all(text in page for text in ("step 3 of 8", "2 of 8 songs done", "about 1 s left"))
    over = progress_html(visit.progress, WORDS)
    assert not any(text in over for text in ("step", "songs done", "left"))


def test_a_run_that_waits_tells_its_place() -> None:
    waiting = RunProgress(stage="waiting")
    assert "You are next" in progress_html(waiting, WORDS, place=1)
    assert "Place 3 " in progress_html(waiting, WORDS, place=3)
    assert "lace" not in progress_html(waiting, WORDS)


def made(caption: str, path: str = "song.flac") -> VisitSong:
    return VisitSong(path=Path(path), served=Path("/cache") / path, caption=caption, seed=7, duration_s=90.0)


@given(text=st.text(max_size=40))
def test_no_text_becomes_markup(text: str) -> None:
    bad = text + HOSTILE
    failed = FailedRun(kind=FailureKind.WEIGHTS, detail=bad, command=bad)
    for page in (
        warnings_html([bad], WORDS),
        songs_html([made(bad)], WORDS),
        failure_html(failed, WORDS),
    ):
        assert "<img" not in page
        assert 'onerror="' not in page


def test_songs_are_listed_with_an_address_that_a_browser_reads() -> None:
    page = songs_html([made("drums & bass", "dr um#1?.flac")], WORDS)
    assert 'data-address="gradio_api/file=/cache/dr%20um%231%3F.flac"' in page
    assert "drums &amp; bass" in page
    assert "1 min 30 s" in page


def test_a_sentence_is_said_once() -> None:
    assert warnings_html(["a.", "b.", "a."], WORDS).count("<li>") == 2
    assert warnings_html([], WORDS) == ""


@given(seconds=st.floats(0, 10_000))
def test_a_length_is_never_without_a_number(seconds: float) -> None:
    assert re.search(r"\d", WORDS.duration(seconds))


def model(*, rest: float = 0.0, fixed: float = 0.0) -> dict[str, float]:
    """A memory model in which denoising takes `fixed` bytes beside what its requests ask for."""
    zero = {f"{KEY}.{name}": 0.0 for name in (*COEFFICIENTS, *OF_AUDIO)}
    return zero | {f"{KEY}.denoise.fixed": fixed, f"{KEY}.rest": rest}


def test_the_guard_panel_says_what_the_guard_would_do() -> None:
    request, three = (Request(caption="x", batch=songs, duration_s=60) for songs in (8, 3))
    free = outlook(EXACT, model(), three).needs["denoise"]
    seen = outlook(EXACT, model(), request, free_bytes=free)
    assert (seen.songs, seen.at_once) == (8, 3)
    assert "3 at a time are made, in 3 passes" in guard_html(EXACT, seen, WORDS)
    roomy = outlook(EXACT, model(rest=GIB), request, free_bytes=free)
    assert roomy.at_once == 8
    # Weights that are not on the card leave no room behind them.
    assert outlook(EXACT, model(rest=GIB), request, free_bytes=free, held_bytes=0).at_once == 3
    assert "8 songs at once fit" in guard_html(EXACT, roomy, WORDS)
    tight = outlook(EXACT, model(fixed=9 * GIB), Request(caption="x", duration_s=60))
    assert "is tried all the same" in guard_html(EXACT, tight, WORDS)
    assert tight.room_bytes == 7.5 * GIB


def test_the_guard_panel_says_what_the_plan_cuts_off() -> None:
    page = guard_html(EXACT, outlook(EXACT, model(), Request(caption="x", duration_s=900)), WORDS)
    assert "was cut to 10 min" in page


def test_where_there_is_nothing_to_guard_or_to_go_by_the_panel_says_so() -> None:
    request = Request(caption="x", batch=2)
    assert WORDS("guard_unknown") in guard_html(EXACT, outlook(EXACT, {}, request), WORDS)
    cpu = exact(CPU, Knobs())
    assert WORDS("guard_host") in guard_html(cpu, outlook(cpu, {}, request), WORDS)


def test_a_plan_that_is_still_to_be_thought_is_expected_at_its_longest() -> None:
    coefficients = model() | {f"{KEY}.encode_audio": float(GIB)}
    open_length = Request(caption="x", think=True, thinking=Thinking(longest_s=100))
    seen = outlook(EXACT, coefficients, open_length)
    half, whole = (outlook(EXACT, coefficients, Request(caption="x", duration_s=s)).needs for s in (50, 100))
    # Without offload the language model stays beside the songs.
    stays = lm_weight_bytes(EXACT.knobs, 2)
    assert half["denoise"] < seen.needs["denoise"] - stays == whole["denoise"]
    assert seen.needs["think"] >= stays
    assert WORDS("stage_think") in guard_html(EXACT, seen, WORDS)
    assert "think" not in whole
    assert "encode_audio" in seen.needs
    worded = Request(caption="x", duration_s=100)
    assert "encode_audio" not in outlook(EXACT, coefficients, worded).needs
    assert "encode_audio" in outlook(EXACT, coefficients, worded, brings_audio=True).needs


@pytest.mark.parametrize("tier", load_tiers().variants["turbo"].tiers, ids=lambda tier: tier.id)  # type: ignore[index]
def test_the_card_panel_has_every_default_and_where_it_comes_from(tier: object) -> None:
    card = simulated_card(tier.certified_gib)  # type: ignore[attr-defined]
    plan = resolve(card, load_tiers())
    page = card_html(plan, CPU, WORDS)
    for value in (card.name, plan.tier, plan.offload, plan.lm, plan.backend, *plan.lm_models):
        assert str(value) in page
    records = {found.record.removeprefix("sha256:")[:8] for found in plan.evidence.values()}
    assert all(record in page for record in records)
    assert "the CPU computes" in page


def test_a_plan_without_evidence_is_shown_too() -> None:
    plan: Plan = exact(simulated_card(8), Knobs(offload=Offload.CPU))
    assert "cpu" in card_html(plan, plan.card, WORDS)
