"""Outside the window of a repaint a song is its source, and nothing is heard where one leads over to the other."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.clip import LATENT_HOP, SAMPLE_RATE, Clip
from acestep.devices.cpu import CpuDevice
from acestep.dit.sampler import noise
from acestep.engine.outside import Outside, spliced
from acestep.request import Request, Task

SECONDS = 7


def sine(pitch: float, phase: float = 0.0, seconds: float = SECONDS) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.5 * np.sin(2 * np.pi * pitch * times + phase)
    return np.stack([wave, wave]).astype(np.float32)


def repaint(source: np.ndarray, **fields: Any) -> tuple[Request, Clip]:
    clip = Clip(audio=source)
    return Request(caption="", task=Task.REPAINT, source_audio=clip, **fields), clip


@given(
    start=st.floats(0, SECONDS - 0.1),
    length=st.floats(0.05, SECONDS),
    fade=st.one_of(st.just(0.0), st.floats(0, 2)),
    to_the_end=st.booleans(),
)
def test_outside_window_and_fade_every_sample_is_the_source_s(
    start: float, length: float, fade: float, to_the_end: bool
) -> None:
    draw = np.random.default_rng(3)
    source, made = draw.uniform(-1, 1, (2, 2, SECONDS * SAMPLE_RATE)).astype(np.float32)
    end = 0.0 if to_the_end else start + length
    request, clip = repaint(source, repaint_start_s=start, repaint_end_s=end, repaint_fade_s=fade)
    song = spliced(request, clip, made)
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE) or request.samples
    around = round(fade * SAMPLE_RATE)
    outside = [slice(0, max(0, first - around)), slice(last + around, None)]
    assert all(np.array_equal(song[:, part], source[:, part]) for part in outside)
    assert np.array_equal(song[:, first:last], made[:, first:last])


@pytest.mark.parametrize("pitch", [220, 440, 5_000])
@pytest.mark.parametrize("other", [(1.0, np.pi), (1.0, 1.0), (0.5, 0.3), (0.2, np.pi / 2)])
def test_a_seam_in_a_sine_jumps_no_further_than_the_sine_itself(pitch: float, other: tuple[float, float]) -> None:
    source, made = sine(pitch), sine(pitch * other[0], other[1])
    # At the crest of the source, where a hard cut to anything else is loudest.
    request, clip = repaint(source, repaint_start_s=2 + 0.25 / pitch, repaint_end_s=4 + 0.25 / pitch)
    usual = np.abs(np.diff(source)).max()
    assert np.abs(np.diff(spliced(request, clip, made))).max() <= usual * 1.01
    hard = msgspec.structs.replace(request, repaint_fade_s=0)
    assert np.abs(np.diff(spliced(hard, clip, -source))).max() > 2 * usual


def test_what_is_made_too_loud_stays_within_full_scale() -> None:
    request, clip = repaint(sine(440), repaint_start_s=2, repaint_end_s=4)
    song = spliced(request, clip, 3 * sine(300))
    assert np.abs(song).max() == 1


def test_latents_outside_are_the_source_at_the_noise_of_a_step_and_lead_over_at_the_end() -> None:
    request, _ = repaint(sine(440), repaint_start_s=2, repaint_end_s=4)
    draw = torch.Generator().manual_seed(5)
    recorded, made = torch.randn(2, 1, request.latent_frames, 4, generator=draw)
    fresh = noise(request.seed, request.latent_frames, 4)
    kept = Outside(request, recorded, lambda _song: fresh.clone(), CpuDevice())
    inside, outside = slice(50, 100), torch.ones(request.latent_frames, dtype=torch.bool)
    outside[inside] = False
    latents = made.clone()
    kept.put_back(latents, 0.3)
    assert torch.allclose(latents[0, outside], (0.3 * fresh + 0.7 * recorded[0])[outside])
    assert torch.equal(latents[0, inside], made[0, inside])
    latents = made.clone()
    kept.fade(latents)
    assert torch.equal(latents[0, inside], made[0, inside])
    for far in (slice(0, 38), slice(112, None)):
        assert torch.equal(latents[0, far], recorded[0, far])
    share = ((latents - recorded) / (made - recorded))[0, 38:50].mean(-1)
    assert torch.allclose(share, torch.arange(1, 13) / 13, atol=1e-3)
    assert kept.steps(8) == 4


@pytest.mark.parametrize(
    ("fields", "keeps"),
    [
        ({"repaint_start_s": 2}, True),
        ({"repaint_end_s": 2}, True),
        ({"repaint_start_s": 2, "repaint_strength": 1}, False),
        ({}, False),
        ({"repaint_start_s": 2, "repaint_strength": 0}, True),
    ],
)
def test_something_is_kept_where_a_window_leaves_something(fields: dict[str, Any], keeps: bool) -> None:
    request, _ = repaint(sine(440), **fields)
    assert request.keeps_outside is keeps
    short, _ = repaint(sine(440, seconds=1.5), **fields | {"repaint_start_s": 0.0, "repaint_end_s": 0.0})
    assert not short.keeps_outside
    assert short.window.stop == 1.5 * SAMPLE_RATE // LATENT_HOP < short.latent_frames
