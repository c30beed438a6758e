"""What is measured during a run: its steps, its texts, and the output for a user."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.engine import service
from acestep.errors import RunFailedError
from acestep.knobs import Knobs, Offload
from acestep.limits.plan import Plan
from acestep.lm.grammar import MAX_CAPTION_TOKENS, FreeGrammars
from acestep.lm.job import Job
from acestep.lm.jobs import Planner
from acestep.lm.parse import ParseError, read_tokens
from acestep.request import MAX_LYRIC_TOKENS, DecodePath, Request
from acestep.result import Result
from acestep.stage import StageReport
from acestep.thinking import Sampling
from calibrate.profiling.clock import StepClock
from calibrate.profiling.recording_backend import RecordingBackend
from calibrate.profiling.report import CODES_SHOWN, exchanges_text, printable
from calibrate.profiling.session import Notes, ProfilingSession, Wish, machine
from calibrate.profiling.writing import Exchange, exchanges, writing_passes
from tests.planner_tokenizers import TOKENIZERS, byte_tokenizer

TOKENIZER = byte_tokenizer()
PLANNER = Planner(TOKENIZER)
VOCABULARY = TOKENIZER.vocabulary


def stage(name: str, seconds: float) -> StageReport:
    return StageReport(name=name, seconds=seconds, songs_per_pass=1, peak_allocated_bytes=0, peak_reserved_bytes=0)


def test_the_steps_make_up_the_stage_and_the_card_is_waited_for_after_each() -> None:
    waits: list[float] = []
    clock = StepClock(SimpleNamespace(synchronize=lambda: waits.append(time.perf_counter())))
    clock("encode", 1, 1)
    for step in range(6):
        clock("denoise", step, 5)
    seconds = clock.step_seconds([stage("encode", 9.0), stage("denoise", 3.0)])
    assert len(seconds) == len(waits) - 1 == 5
    assert sum(seconds) == pytest.approx(3.0)
    assert StepClock(SimpleNamespace()).step_seconds([stage("decode", 1.0)]) == ()


def test_a_pass_that_ran_out_of_memory_has_no_steps() -> None:
    clock = StepClock(SimpleNamespace(synchronize=lambda: None))
    for steps in (2, 3, 3):  # the first of three attempts ended after a step
        for step in range(steps if steps < 3 else 4):
            clock("denoise", step, 3)
    seconds = clock.step_seconds([stage("denoise", 3.0)])
    assert len(seconds) == 6
    assert min(seconds) >= 0


class ScriptedBackend:
    """Writes what it is told to."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self.texts = texts
        self.closed = False

    def write(self, jobs: Sequence[Job], progress: Any) -> list[tuple[int, ...]]:
        progress(1, 1)
        return [tuple(text) for text in self.texts[: len(jobs)]]

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        return 17 * len(jobs)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Do nothing."""

    def close(self) -> None:
        self.closed = True


def job(seed: int = 0) -> Job:
    return PLANNER.create_job("rain", instrumental=False, language="unknown", seed=seed)[0]


def test_recorded_passes_equal_the_written_tokens() -> None:
    codes = [*(VOCABULARY.id(code) for code in range(30)), VOCABULARY.eos]
    words = [*TOKENIZER.plain("la la"), VOCABULARY.eos]
    backend = ScriptedBackend([codes, codes, words])
    heard: list[Any] = []
    between = RecordingBackend(backend, heard)
    steps: list[tuple[int, int]] = []
    assert between.write([job(), job(1)], lambda *done: steps.append(done)) == [tuple(codes), tuple(codes)]
    backend.texts = [words]
    between.write([job()], lambda *_: None)
    assert steps == [(1, 1)]
    assert between.cache_bytes([job()]) == 17
    between.close()
    assert backend.closed
    of_codes, of_words = writing_passes(heard, PLANNER)
    assert (of_codes.what, of_codes.songs, of_codes.tokens) == ("codes", 2, 2 * len(codes))
    assert (of_words.what, of_words.tokens) == ("words", len(words))
    assert of_codes.prompt_tokens == 2 * len(job().prompt)
    assert of_codes.tokens_per_second == pytest.approx(of_codes.tokens / of_codes.seconds)
    texts = exchanges(heard, PLANNER)
    assert [text.prompt for text in texts] == [PLANNER.spelled(job().prompt)] * 3
    assert texts[-1].written == "la la<|im_end|>"


def test_a_person_sees_the_first_codes_and_how_many_more_there_are() -> None:
    codes = "".join(f"<|audio_code_{number}|>" for number in range(100))
    said = exchanges_text((Exchange(prompt="who?", written=f"{codes}<|im_end|>"),))
    assert said.count("<|audio_code_") == CODES_SHOWN
    assert f"{100 - CODES_SHOWN} more<|im_end|>" in said
    assert "who?" in said


@given(text=st.text())
def test_nothing_that_a_model_writes_moves_the_cursor(text: str) -> None:
    shown = printable(text)
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(data=st.data())
def test_without_rules_any_token_may_follow_until_the_turn_ends(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]()
    vocabulary = tokenizer.vocabulary
    grammars = FreeGrammars(tokenizer)
    for grammar, ends in (
        (grammars.plan(), {vocabulary.eos, vocabulary.thought}),
        (grammars.write(), {vocabulary.eos}),
    ):
        state, tokens = grammar.start, []
        for token in data.draw(st.lists(st.integers(0, vocabulary.codes.stop - 1), max_size=20)):
            assert token in grammar.allowed(state)
            state = grammar.after(state, token)
            tokens.append(token)
            assert grammar.done(state) == (token in ends)
            if grammar.done(state):
                break
        else:
            with pytest.raises(ValueError, match="not allowed"):
                grammar.after(state, vocabulary.codes.stop)


def test_without_rules_words_get_no_longer_and_codes_stay_codes() -> None:
    free = FreeGrammars(TOKENIZER)
    assert free.plan().most_tokens == MAX_CAPTION_TOKENS
    assert free.write().most_tokens == MAX_CAPTION_TOKENS + MAX_LYRIC_TOKENS
    codes = free.codes(3)
    assert codes.allowed(codes.start).spans == (VOCABULARY.codes,)
    assert codes.most_tokens == 4


def test_an_unconstrained_planner_asks_the_same_and_reads_what_parses() -> None:
    free = PLANNER.unconstrained()
    asked = free.create_job("rain", instrumental=False, language="unknown", seed=0)[0]
    assert asked.prompt == job().prompt
    assert asked.sampling == job().sampling == Sampling(guidance=1.0)
    said = [VOCABULARY.think, *TOKENIZER.plain("\nbpm: 90\ncaption: rain\n"), VOCABULARY.thought, VOCABULARY.eos]
    assert free.description(said).metadata.bpm == 90
    with pytest.raises(ParseError):
        free.description(TOKENIZER.plain("la la"))
    assert read_tokens(said, TOKENIZER).closed


class FakePipeline:
    """Runs with more offload after its first song, and notes when it is closed."""

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.closed = False
        self.fails = False

    def generate(self, request: Request, *, progress: Any) -> Result:
        self.knobs = Knobs(offload=Offload.CPU_DIT)
        if self.fails:
            raise RunFailedError("no memory")
        return Result(
            request=request, songs=(), stages=(), songs_per_pass=1, decode_path=DecodePath.GPU, warnings=("slower",)
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakePipeline]:
    """Every pipeline that is made."""
    pipelines: list[FakePipeline] = []

    def pipeline(_: Any, plan: Plan, *__: Any) -> FakePipeline:
        pipelines.append(FakePipeline(plan.knobs))
        return pipelines[-1]

    monkeypatch.setattr(service, "guarded_pipeline", pipeline)
    return pipelines


def opened(notes: Notes) -> ProfilingSession:
    at = machine(Wish(model="tiny", device="cpu"), notes)
    return ProfilingSession(at, notes, think=False, unasked=True, constrained=True)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_run_gave_up_for_memory_is_not_what_the_next_one_starts_with(
    fails: bool, made: list[FakePipeline]
) -> None:
    session = opened(Notes(lambda _: None))
    made[0].fails = fails
    with pytest.raises(RunFailedError) if fails else nullcontext():
        session.generate(Request(caption="piano"))
    assert made[0].closed
    session.generate(Request(caption="piano"))
    assert len(made) == 2


@pytest.mark.usefixtures("made")
def test_what_holds_for_every_song_is_said_once_and_the_rest_of_each() -> None:
    told: list[str] = []
    notes = Notes(told.append)
    session = opened(notes)
    assert any("noise, not music" in sentence for sentence in told)
    assert session.generate(Request(caption="piano")).warnings == ("slower",)
    assert session.generate(Request(caption="piano")).warnings == ("slower",)
    assert notes.sentences == tuple(told)


@pytest.mark.usefixtures("made")
def test_the_device_that_was_settled_on_is_the_one_that_songs_are_timed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(lambda _: None)
    at = machine(Wish(model="tiny", device="cpu"), notes)
    monkeypatch.setattr(service, "open_here", pytest.fail)
    session = ProfilingSession(at, notes, think=False, unasked=True, constrained=True)
    assert session._service._device is at.device
