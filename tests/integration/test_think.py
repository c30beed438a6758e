"""A language model plans the songs: in the pipeline, within the memory there is, the same song whatever the batch."""

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec
import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.errors import RunFailedError, UsageError
from acestep.knobs import Knobs, Offload, Variant
from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.job import Job
from acestep.lm.language import Language
from acestep.lm.metadata import Metadata
from acestep.lm.thinker import LmThinker, even_passes, write_in_passes
from acestep.request import Request, Task
from acestep.result import Result
from acestep.thinking import Thinking
from acestep.units import ceil_div
from calibrate.profiling.recording_backend import RecordingBackend
from tests.planner_tokenizers import HOSTILE
from tests.small_card import SmallCard
from tests.some import first_of

BRIEF = Thinking(caption=False)
"""A tiny model rewords a caption in as many tokens as it may, which takes a while."""

WISH = Request(caption="slow piano", lyrics="la la", duration_s=2, steps=2, seed=7, think=True, thinking=BRIEF)


@pytest.fixture(scope="module")
def parts() -> Components:
    components = build("tiny", Variant.TURBO, dtype=torch.float32)
    prepare(components, Knobs())
    return components


@pytest.fixture(scope="module")
def language() -> Language:
    return Language("tiny", Knobs(), CpuDevice(), longest_s=600, warn=pytest.fail)


def made(request: Request, parts: Components, language: Language, device: CpuDevice | None = None) -> Result:
    knobs = Knobs(offload=Offload.CPU_DIT, lm="0.6B")
    return Pipeline(parts, knobs, device or CpuDevice(), thinker=language.thinker()).generate(request)


def test_a_song_is_the_same_alone_and_in_a_batch_and_follows_its_own_codes(
    parts: Components, language: Language
) -> None:
    batch = made(msgspec.structs.replace(WISH, batch=3), parts, language)
    alone = made(msgspec.structs.replace(WISH, seed=8), parts, language)
    assert np.array_equal(batch.songs[1].audio, alone.songs[0].audio)
    assert not np.array_equal(batch.songs[0].audio, batch.songs[1].audio)
    assert [stage.name for stage in batch.stages] == ["think", "encode_audio", "encode", "denoise", "decode"]
    plain = made(msgspec.structs.replace(WISH, think=False), parts, language)
    assert not np.array_equal(plain.songs[0].audio, batch.songs[0].audio)


def test_what_is_left_open_is_filled_in_and_what_was_given_stays(
    parts: Components, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    given = msgspec.structs.replace(WISH, bpm=90, keyscale="C major", thinking=Thinking())
    carried_out = made(given, parts, language).request
    assert (carried_out.bpm, carried_out.keyscale, carried_out.duration_s) == (90, "C major", WISH.duration_s)
    assert carried_out.timesignature in ("2", "3", "4", "6")
    assert carried_out.caption not in ("", WISH.caption)


def test_a_plan_that_is_not_changed_gives_the_song_that_thinking_at_once_gives(
    parts: Components, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    wish = msgspec.structs.replace(WISH, thinking=Thinking())
    at_once = made(wish, parts, language)
    knobs = Knobs(offload=Offload.CPU_DIT, lm="0.6B")
    planned, _ = Pipeline(parts, knobs, CpuDevice(), thinker=language.thinker()).plan(wish)
    assert not planned.has_audio
    follows = msgspec.structs.replace(
        wish,
        thinking=Thinking(planned_caption=planned.caption),
        **{name: getattr(planned, name) for name in ("bpm", "keyscale", "timesignature", "language", "duration_s")},
    )
    # Only the codes of the song are left to be written.
    assert language.planner.plan_jobs(follows) == ()
    result = made(follows, parts, language)
    assert np.array_equal(result.songs[0].audio, at_once.songs[0].audio)
    assert result.request.caption == planned.caption != WISH.caption
    changed = msgspec.structs.replace(follows, bpm=31 if planned.bpm != 31 else 32)
    assert not np.array_equal(made(changed, parts, language).songs[0].audio, result.songs[0].audio)


def test_a_length_that_is_left_open_is_planned_within_what_the_card_reaches(
    parts: Components, language: Language
) -> None:
    within = Thinking(longest_s=12, caption=False, codes=False)
    result = made(Request(caption="drums", steps=1, think=True, thinking=within), parts, language)
    assert 10 <= result.request.duration_s <= 12
    assert result.songs[0].audio.shape[1] == result.request.duration_s * 48_000
    assert result.request.caption == "drums"
    assert "encode_audio" not in {stage.name for stage in result.stages}


def test_without_open_fields_nothing_is_thought(language: Language) -> None:
    nothing = Thinking(metas=False, caption=False, language=False)
    assert language.planner.plan_jobs(msgspec.structs.replace(WISH, thinking=nothing)) == ()
    assert language.planner.plan_jobs(WISH)


def test_only_the_codes_are_drawn_with_guidance(language: Language) -> None:
    planner = language.planner
    assert WISH.thinking.sampling.guidance > 1
    assert [job.prompts for job in planner.plan_jobs(WISH)] == [(job.prompt,) for job in planner.plan_jobs(WISH)]
    assert all(job.guided for job in planner.compose_jobs(WISH, planner.thought(WISH, ()), 4))


def test_songs_that_do_not_fit_together_are_planned_in_passes_with_equal_results(
    parts: Components, language: Language
) -> None:
    three = msgspec.structs.replace(WISH, batch=3)
    roomy = made(three, parts, language)
    jobs = language.planner.compose_jobs(three, language.planner.thought(three, ()), 4)
    backend = language.open(CpuDevice(), lambda: pytest.fail("nothing is written"))
    tight = made(three, parts, language, SmallCard(free_bytes=backend.cache_bytes(jobs[:2]) - 1))
    assert {stage.name: stage.songs_per_pass for stage in roomy.stages}["think"] == 3
    assert {stage.name: stage.songs_per_pass for stage in tight.stages}["think"] == 1
    for song, other in zip(roomy.songs, tight.songs, strict=True):
        # A small card decodes in other tiles, which rounds otherwise.
        assert np.allclose(song.audio, other.audio, atol=1e-6)


class Refusing(RecordingBackend):
    """Opens backends that run out of memory the first few times that they write."""

    def __init__(self, language: Language, refusals: int) -> None:
        self._language = language
        self.refusals = refusals

    def open(self, device: Device, use: Callable[[], AbstractContextManager[None]]) -> LmBackend:
        super().__init__(self._language.open(device, use), [])
        return self

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        if self.refusals:
            self.refusals -= 1
            raise torch.OutOfMemoryError("no room for a plan")
        return super().write(jobs, written)


def test_thinking_that_does_not_fit_is_tried_with_more_offload_and_plans_the_same(
    parts: Components, language: Language
) -> None:
    brief = msgspec.structs.replace(WISH, duration_s=1)
    refusing = Refusing(language, refusals=2)
    thinker = LmThinker(language.planner, refusing.open, language.modules())
    pipeline = Pipeline(parts, Knobs(lm="0.6B"), SmallCard(), thinker=thinker)
    result = pipeline.generate(brief)
    warned = [sentence for sentence in result.warnings if "ran out of memory with offload" in sentence]
    assert len(warned) == 2
    assert "cpu+dit is used" in warned[1]
    plain = made(brief, parts, language, SmallCard())
    assert result.request == plain.request
    assert np.allclose(result.songs[0].audio, plain.songs[0].audio, atol=1e-6)
    refusing.refusals = 100
    with pytest.raises(RunFailedError, match="no room for a plan"):
        pipeline.generate(brief)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.generate(brief, strict=True)


def test_songs_one_after_the_other_leave_nothing_behind(parts: Components, language: Language) -> None:
    brief = msgspec.structs.replace(WISH, duration_s=1, steps=1)
    pipeline = Pipeline(parts, Knobs(offload=Offload.CPU_DIT), SmallCard(), thinker=language.thinker())

    def tensors_after(songs: int) -> int:
        for seed in range(songs):
            pipeline.generate(msgspec.structs.replace(brief, seed=seed))
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors_after(1)
    assert tensors_after(3) == before


def test_passes_shrink_evenly_down_to_one_song() -> None:
    for songs in range(1, 20):
        sizes = list(even_passes(songs))
        assert sizes[0] == songs
        assert sizes[-1] == 1
        assert sizes == sorted(set(sizes), reverse=True)
        assert all(ceil_div(songs, ceil_div(songs, size)) == size for size in sizes)


def test_running_out_of_memory_while_writing_tries_fewer_songs(language: Language) -> None:
    class Refusing:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def write(self, jobs: list[object], written: object) -> list[tuple[int, ...]]:
            self.asked.append(len(jobs))
            if len(jobs) > 2:
                raise torch.OutOfMemoryError("no room")
            return [(1,)] * len(jobs)

        def cache_bytes(self, jobs: object) -> int:
            return 0

        def rehearse(self, jobs: object) -> None: ...

        def close(self) -> None: ...

    jobs = language.planner.compose_jobs(msgspec.structs.replace(WISH, batch=8), Metadata(bpm=120), 4)
    backend = Refusing()
    tokens, at_once = write_in_passes(jobs, backend, CpuDevice(), lambda step, most: None)  # type: ignore[arg-type]
    assert (len(tokens), at_once) == (8, 2)
    assert backend.asked == [8, 4, 3, 2, 2, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        write_in_passes(jobs, backend, CpuDevice(), lambda step, most: None, 4)  # type: ignore[arg-type]


def test_no_pass_begins_with_what_the_one_before_it_left_in_the_cache(language: Language) -> None:
    done: list[str] = []

    class Noting(CpuDevice):
        def empty_cache(self) -> None:
            done.append("empty")

    class Writing:
        def write(self, jobs: list[object], written: object) -> list[tuple[int, ...]]:
            done.append("write")
            return [(1,)] * len(jobs)

    jobs = language.planner.compose_jobs(msgspec.structs.replace(WISH, batch=8), Metadata(bpm=120), 4)
    write_in_passes(jobs, Writing(), Noting(), lambda step, most: None, 3)  # type: ignore[arg-type]
    assert done == ["write", "empty", "write", "empty", "write"]


def test_a_request_to_think_without_a_language_model_is_refused(parts: Components) -> None:
    with pytest.raises(UsageError, match="language model"):
        Pipeline(parts, Knobs(), CpuDevice()).generate(WISH)


def test_a_song_that_exists_is_not_planned() -> None:
    cover = Request(caption="x", task=Task.COVER, audio_codes=(1,) * 10, think=True)
    assert not cover.thinks
    assert cover.duration_s == pytest.approx(2)


@pytest.mark.parametrize("words", first_of(HOSTILE, 3))
def test_hostile_words_make_a_song_and_nothing_else(words: str, parts: Components, language: Language) -> None:
    frugal = Thinking(caption=False, negative=words)
    hostile = msgspec.structs.replace(WISH, caption=words, lyrics=words, duration_s=1, steps=1, thinking=frugal)
    result = made(hostile, parts, language)
    assert np.isfinite(result.songs[0].audio).all()
    assert result.songs[0].audio.shape == (2, 48_000)
