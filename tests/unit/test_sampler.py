"""Schedule, defaults and noise as the weights were trained with."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.dit.sampler import (
    Correction,
    advance,
    correction_for,
    from_level,
    guidance_for,
    noise,
    schedule,
    steps_for,
    too_many_steps,
)
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


@pytest.mark.parametrize("variant", list(Variant))
def test_steps_are_corrected_for_turbo_unless_the_user_says_otherwise(variant: Variant) -> None:
    default, off, on = (correction_for(variant, Request(caption="", dcw=wish)) for wish in (None, False, True))
    assert (default is not None) is variant.is_turbo
    assert off is None
    assert on == Correction(low=0.05, high=0.02)


def _corrected_by_wavelets(latents: Tensor, velocity: Tensor, now: float, after: float, scalers: Correction) -> Tensor:
    """A step by the definition: both signals to Haar bands, each band moved from the prediction's, and back."""

    def bands(signal: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.nn.functional.pad(signal, (0, 0, 0, signal.shape[1] % 2))
        even, odd = padded[:, 0::2], padded[:, 1::2]
        return (even + odd) / 2**0.5, (even - odd) / 2**0.5

    (low, high), (low_0, high_0) = bands(latents - (now - after) * velocity), bands(latents - now * velocity)
    low = low + now * scalers.low * (low - low_0)
    high = high + (1 - now) * scalers.high * (high - high_0)
    made = torch.stack([(low + high) / 2**0.5, (low - high) / 2**0.5], dim=2).flatten(1, 2)
    return made[:, : latents.shape[1]]


@given(
    frames=st.integers(1, 9),
    times=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: sorted(pair, reverse=True)),
    scalers=st.builds(Correction, low=st.floats(0, 1), high=st.floats(0, 1)),
    seed=st.integers(0, 1_000),
)
def test_a_corrected_step_is_that_of_the_wavelets(
    frames: int, times: list[float], scalers: Correction, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    latents, velocity = torch.randn(2, 2, frames, 3, generator=draw, dtype=torch.float64)
    expected = _corrected_by_wavelets(latents, velocity, *times, scalers)
    advance(latents, velocity, *times, scalers)
    assert torch.allclose(latents, expected, atol=1e-12)


def test_a_correction_of_nothing_and_the_last_step_are_plain_steps() -> None:
    latents, velocity = torch.randn(2, 1, 6, 4, generator=torch.Generator().manual_seed(1))
    for after, correction in ((0.25, Correction(low=0, high=0)), (0.0, Correction(low=0.9, high=0.7))):
        plain, corrected = latents.clone(), latents.clone()
        advance(plain, velocity, 0.5, after)
        advance(corrected, velocity, 0.5, after, correction)
        assert torch.equal(plain, corrected)
    advance(corrected, velocity, 0.5, 0.25, Correction(low=0.9, high=0.7))
    assert not torch.equal(plain, corrected)


class _Operations(TorchDispatchMode):
    """Writes down the names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **kwargs or {})


def test_a_corrected_step_takes_no_memory() -> None:
    latents, velocity = torch.zeros(2, 7, 4), torch.ones(2, 7, 4, dtype=torch.bfloat16)
    with _Operations() as seen:
        advance(latents, velocity, 0.5, 0.25, Correction(low=0.9, high=0.7))
    # Views, and additions in place.
    assert seen.names == {"aten.add_.Tensor", "aten.slice.Tensor"}


@given(steps=st.integers(1, 60), shift=st.floats(0.1, 10), level=st.floats(0, 1))
def test_the_steps_of_a_noise_level_begin_where_it_is_nearest(steps: int, shift: float, level: float) -> None:
    times = schedule(steps, shift)
    left = from_level(times, level)
    assert left
    assert left == times[-len(left) :]
    assert abs(left[0] - level) == min(abs(time - level) for time in times)


@pytest.mark.parametrize("variant", list(Variant))
def test_more_steps_than_turbo_was_trained_for_are_said(variant: Variant) -> None:
    assert too_many_steps(variant, 0) == too_many_steps(variant, 8) == ()
    said = too_many_steps(variant, 9)
    assert bool(said) is variant.is_turbo
    assert all("8 steps" in sentence for sentence in said)
