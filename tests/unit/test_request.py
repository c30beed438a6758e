"""A request that exists makes sense: what a task cannot use or lacks is refused by name."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.clip import LATENT_HOP, SAMPLE_RATE, Clip
from acestep.dit.prompts import codes_in, text_prompt
from acestep.engine.encode_audio import excerpts
from acestep.request import MAX_AUDIO_CODE, Request, Task
from acestep.units import ceil_div


def _clip(samples: int) -> Clip:
    return Clip(audio=np.zeros((2, samples), dtype=np.float32))


def _request(**fields: Any) -> Request:
    return Request(caption="piano", **fields)


SOURCE = _clip(10 * SAMPLE_RATE)


@given(samples=st.integers(SAMPLE_RATE, 20 * SAMPLE_RATE))
def test_a_song_is_as_long_as_its_source_to_the_sample(samples: int) -> None:
    request = _request(task=Task.COVER, source_audio=_clip(samples))
    assert request.duration_s == samples / SAMPLE_RATE
    assert request.song_frames == samples // LATENT_HOP
    assert request.latent_frames == max(128, request.song_frames)
    assert request.samples == samples


@given(duration=st.floats(1, 600))
def test_a_new_song_is_computed_in_the_frames_of_its_length_rounded_to_a_tenth_of_a_second(duration: float) -> None:
    request = _request(duration_s=duration)
    assert request.samples == round(duration * SAMPLE_RATE)
    # Never shorter than the song, and less than a tenth of a second and a frame longer.
    assert request.latent_frames == 128 or 0 <= request.latent_frames * LATENT_HOP - request.samples < 2 * 2_400 + 1_920
    rounded = ceil_div(round(round(duration, 1) * SAMPLE_RATE), LATENT_HOP)
    assert request.latent_frames == max(128, rounded, request.song_frames)


@pytest.mark.parametrize(
    ("duration", "frames"), [(3, 128), (5.12, 128), (5.13, 129), (7.56, 190), (7.52, 188), (60, 1500)]
)
def test_lengths_have_the_original_s_frames(duration: float, frames: int) -> None:
    assert _request(duration_s=duration).latent_frames == frames


@pytest.mark.parametrize("lyrics", ["", " ", "\n\t\n"])
def test_a_song_without_words_is_instrumental_as_in_training(lyrics: str) -> None:
    assert _request(lyrics=lyrics).lyrics == _request().lyrics == "[Instrumental]"
    assert _request(lyrics="[verse]\nla").lyrics == "[verse]\nla"


@given(codes=st.lists(st.integers(0, MAX_AUDIO_CODE), min_size=5, max_size=60))
def test_a_song_is_as_long_as_its_codes(codes: list[int]) -> None:
    request = _request(task=Task.COVER, audio_codes=tuple(codes))
    assert request.song_frames == 5 * len(codes)
    assert request.latent_frames == max(128, 5 * len(codes))
    assert request.duration_s == pytest.approx(len(codes) / 5)


def test_without_a_source_a_song_is_as_long_as_asked_or_a_minute() -> None:
    assert _request().duration_s == 60
    assert _request(reference_audio=SOURCE).duration_s == 60
    assert _request(reference_audio=SOURCE, duration_s=33).duration_s == 33
    assert _request(task=Task.COVER, source_audio=SOURCE, duration_s=4).song_frames == 100


@given(start=st.floats(0, 9.99), length=st.floats(0, 20), duration=st.floats(1, 10))
def test_the_window_is_never_empty_and_never_outside_the_song(start: float, length: float, duration: float) -> None:
    end = start + length if length > 0.01 else 0.0
    request = _request(
        task=Task.REPAINT, source_audio=SOURCE, repaint_start_s=start, repaint_end_s=end, duration_s=duration
    )
    window = request.window
    assert 0 <= window.start < window.stop <= request.song_frames <= request.latent_frames
    assert window.start == min(int(start * 25), request.song_frames - 1)
    heard = request.sample_window
    assert 0 <= heard.start < heard.stop <= request.samples


@pytest.mark.parametrize("task", [Task.TEXT2MUSIC, Task.COVER, Task.EXTRACT, Task.COMPLETE])
def test_other_tasks_make_the_whole_song(task: Task) -> None:
    source = None if task is Task.TEXT2MUSIC else SOURCE
    request = _request(task=task, source_audio=source, track="drums" if task is Task.EXTRACT else "")
    assert request.window == range(request.latent_frames)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        *(({"task": task}, "source_audio") for task in Task if task is not Task.TEXT2MUSIC),
        ({"source_audio": SOURCE}, "source_audio"),
        ({"audio_codes": (1, 2, 3, 4, 5)}, "audio_codes"),
        ({"track": "drums"}, "track"),
        ({"task": Task.COVER, "source_audio": SOURCE, "tracks": ("drums",)}, "tracks"),
        ({"task": Task.COMPLETE, "source_audio": SOURCE, "tracks": ("drums", " ")}, "tracks"),
        ({"cover_strength": 0.5}, "cover_strength"),
        ({"cover_noise": 0.5}, "cover_noise"),
        ({"task": Task.COVER, "audio_codes": (1,) * 50, "cover_noise": 0.5}, "cover_noise"),
        ({"task": Task.COVER, "source_audio": SOURCE, "repaint_strength": 0.1}, "repaint_strength"),
        ({"task": Task.REPAINT, "source_audio": SOURCE, "repaint_strength": 1.1}, "repaint_strength must be 0 to 1"),
        ({"task": Task.REPAINT, "source_audio": SOURCE, "repaint_fade_s": math.nan}, "repaint_fade_s"),
        ({"dcw_scaler": 1.5}, "dcw_scaler must be 0 to 1"),
        ({"dcw_high_scaler": math.inf}, "dcw_high_scaler"),
        ({"repaint_end_s": 3.0}, "repaint_end_s"),
        ({"task": Task.COVER, "source_audio": SOURCE, "audio_codes": (1, 2, 3, 4, 5)}, "leave one out"),
        ({"task": Task.COVER, "source_audio": SOURCE, "cover_strength": math.nan}, "cover_strength"),
        ({"task": Task.COVER, "source_audio": SOURCE, "duration_s": 10.1}, "longer than the 10 seconds"),
        ({"task": Task.COVER, "audio_codes": (1, 2, 3, 4, MAX_AUDIO_CODE + 1)}, "audio_codes"),
        ({"task": Task.COVER, "source_audio": _clip(SAMPLE_RATE // 2)}, "source_audio .* at least 1 second, got 0.5"),
        ({"task": Task.COVER, "audio_codes": (1,)}, "audio_codes .* at least 1 second, got 0.2"),
        ({"task": Task.COVER, "audio_codes": (1,), "duration_s": 5}, "audio_codes .* at least 1 second, got 0.2"),
        ({"task": Task.COVER, "audio_codes": (MAX_AUDIO_CODE + 1,), "duration_s": 5}, f"0 to {MAX_AUDIO_CODE}"),
        ({"task": Task.COVER, "audio_codes": (1,) * 18_001}, "audio_codes .* at most 3600 seconds, got 3600.2"),
        ({"task": Task.REPAINT, "source_audio": SOURCE, "repaint_start_s": 10.0}, "the source ends at 10"),
        ({"task": Task.REPAINT, "source_audio": SOURCE, "repaint_start_s": 5, "repaint_end_s": 4}, "repaint_end_s"),
        ({"task": Task.REPAINT, "source_audio": SOURCE, "repaint_start_s": math.nan}, "repaint_start_s"),
        ({"guidance_interval": (0.5, 0.4)}, "guidance_interval"),
        ({"guidance_interval": (0.5, 1.4)}, "guidance_interval"),
    ],
)
def test_what_a_task_cannot_use_or_lacks_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        _request(**fields)


@pytest.mark.parametrize("task", Task)
def test_a_task_by_its_name_is_the_task(task: Task) -> None:
    needs: dict[str, Any] = {} if task is Task.TEXT2MUSIC else {"source_audio": SOURCE}
    needs |= {"track": "drums"} if task in (Task.EXTRACT, Task.LEGO) else {}
    request = _request(task=task.value, think=True, **needs)
    assert request == _request(task=task, think=True, **needs)
    assert request.task is task
    assert request.thinks == (task is Task.TEXT2MUSIC)


@pytest.mark.parametrize("task", ["dance", "", None, 3, ["cover"]])
def test_a_task_that_there_is_not_is_refused_with_the_list(task: Any) -> None:
    with pytest.raises(ValueError, match="text2music repaint cover extract lego complete"):
        _request(task=task)


@pytest.mark.parametrize("field", [name for name in Request.__struct_fields__ if name not in ("task", "timesignature")])
def test_a_value_of_another_type_is_refused_by_name(field: str) -> None:
    given = {"caption": "piano"} | {field: object()}
    with pytest.raises(ValueError, match=f"^{field} cannot be "):
        Request(**given)


def test_numbers_and_lists_of_other_libraries_are_taken() -> None:
    request = _request(
        task="cover", audio_codes=[1] * 10, batch=np.int64(2), seed=np.uint32(4), cover_strength=np.float32(0.5)
    )
    assert (request.audio_codes, request.batch, request.seed, request.cover_strength) == ((1,) * 10, 2, 4, 0.5)
    assert type(request.batch) is int


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros((1, 48_000), dtype=np.float32),
        np.zeros((2, 48_000)),
        np.zeros((2, 100), dtype=np.float32),
        np.zeros(48_000, dtype=np.float32),
        np.full((2, 48_000), np.nan, dtype=np.float32),
        np.full((2, 48_000), -np.inf, dtype=np.float32),
        [[0.0], [0.0]],
        None,
    ],
)
def test_a_clip_is_two_channels_of_finite_numbers(audio: Any) -> None:
    with pytest.raises(ValueError, match="audio"):
        Clip(audio=audio)


@given(samples=st.integers(LATENT_HOP, 60 * SAMPLE_RATE))
def test_a_reference_is_heard_for_ten_seconds_at_its_start_middle_and_end(samples: int) -> None:
    ramp = np.broadcast_to(np.arange(samples, dtype=np.float32), (2, samples))
    heard = excerpts(Clip(audio=ramp))
    third = 10 * SAMPLE_RATE
    assert heard.shape == (2, 3 * third)
    length = samples if samples >= 3 * third else samples * ceil_div(3 * third, samples)
    for piece, start in enumerate((0, length // 3, length - third)):
        expected = (start + np.arange(third, dtype=np.int64)) % samples
        assert np.array_equal(heard[0, piece * third : (piece + 1) * third], expected.astype(np.float32))


def test_the_prompt_names_the_tracks_in_capitals() -> None:
    extract = _request(task=Task.EXTRACT, source_audio=SOURCE, track="Backing vocals")
    assert "Extract the BACKING_VOCALS track from the audio:" in text_prompt(extract)
    complete = _request(task=Task.COMPLETE, source_audio=SOURCE, tracks=("bass", "drums"))
    assert "Complete the input track with BASS | DRUMS:" in text_prompt(complete)
    assert "- duration: 10 seconds" in text_prompt(complete)


@given(codes=st.lists(st.integers(0, 2 * MAX_AUDIO_CODE)), between=st.sampled_from(["", " ", "\n", "la", "<|x|>"]))
def test_codes_are_found_in_any_text_and_held_within_the_codebook(codes: list[int], between: str) -> None:
    text = between.join(f"<|audio_code_{code}|>" for code in codes)
    assert codes_in(text) == tuple(min(code, MAX_AUDIO_CODE) for code in codes)
    assert codes_in("<|audio_code_" + "9" * 5_000 + "|>") == (MAX_AUDIO_CODE,)
