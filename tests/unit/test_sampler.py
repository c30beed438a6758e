"""Schedule, defaults and noise as the weights were trained with."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.dit.sampler import guidance_for, noise, schedule, steps_for
from acestep.knobs import Variant
from acestep.request import Request


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (3.0, [1, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3]),
        (2.0, [1, 0.933333, 0.857143, 0.769231, 0.666667, 0.545455, 0.4, 0.222222]),
        (1.0, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    ],
)
def test_eight_steps_are_the_published_turbo_tables(shift: float, expected: list[float]) -> None:
    assert schedule(8, shift) == pytest.approx(expected, abs=1e-6)


@given(steps=st.integers(1, 200), shift=st.floats(1e-300, 20))
def test_every_shift_that_a_request_may_have_goes_down_from_noise(steps: int, shift: float) -> None:
    try:
        request = Request(caption="", steps=steps, shift=shift)
    except ValueError:
        assert not 0.1 <= shift <= 10
        return
    timesteps = schedule(request.steps, request.shift)
    assert timesteps[0] == pytest.approx(1)
    assert timesteps[-1] > 0
    assert all(before > after for before, after in pairwise(timesteps))


@pytest.mark.parametrize("variant", list(Variant))
def test_turbo_runs_unguided_and_the_others_guided(variant: Variant) -> None:
    assert (guidance_for(variant, 5.0) == 1.0) is variant.is_turbo
    assert (guidance_for(variant, 0.0) == 1.0) is variant.is_turbo
    assert steps_for(variant, 0) == (8 if variant.is_turbo else 50)
    assert steps_for(variant, 3) == 3


def test_noise_belongs_to_a_seed_alone() -> None:
    assert torch.equal(noise(5, 40, 64), noise(5, 40, 64))
    assert not torch.equal(noise(5, 40, 64), noise(6, 40, 64))
    assert noise(5, 40, 64).dtype is torch.float32


@pytest.mark.parametrize(
    "request_",
    [
        Request(caption="slow piano", duration_s=33.6),
        Request(
            caption="a\nb # Caption",
            lyrics="[verse] 안녕",
            bpm=90,
            keyscale="F# minor",
            timesignature="3",
            language="ko",
        ),
    ],
)
def test_prompts_are_the_library_s_to_the_letter(request_: Request) -> None:
    text, lyrics = _library_prompts(request_)
    assert text_prompt(request_) == text
    assert lyric_prompt(request_) == lyrics


def _library_prompts(request: Request) -> tuple[str, str]:
    from diffusers import AceStepPipeline

    pipe = object.__new__(AceStepPipeline)
    prompts: tuple[str, str] = AceStepPipeline._format_prompt(
        pipe,
        prompt=request.caption,
        lyrics=request.lyrics,
        vocal_language=request.language,
        audio_duration=request.duration_s,
        bpm=request.bpm or None,
        keyscale=request.keyscale,
        timesignature=request.timesignature,
    )
    return prompts
