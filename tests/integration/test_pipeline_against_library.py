"""The same tiny weights and noise through our pipeline and through the library's give the same audio."""

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import TINY_LATENT, build
from acestep.devices.cpu import CpuDevice
from acestep.dit.attention import Kernels
from acestep.dit.denoiser import Denoiser
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Variant
from acestep.request import Request
from tests.library import library_audio
from tests.some import first_of

TOLERANCE = 1e-5


# Even and odd lengths, alone and in a batch, guided and not; 11 s is past the sliding window and past one tile.
@pytest.mark.parametrize(
    ("variant", "batch", "duration_s"),
    first_of(
        [
            (Variant.TURBO, 1, 11.04),
            (Variant.TURBO, 3, 5.4),
            (Variant.BASE, 1, 5.8),
            (Variant.BASE, 3, 5.2),
            (Variant.TURBO, 1, 5.2),
            (Variant.BASE, 1, 11.0),
        ],
        4,
    ),
)
def test_the_waveform_is_the_library_s(variant: Variant, batch: int, duration_s: float) -> None:
    components = build("tiny", variant, dtype=torch.float32)
    request = Request(
        caption="slow piano, rain",
        lyrics="[verse]\n" + "la la la " * 40,
        duration_s=duration_s,
        batch=batch,
        seed=11,
        steps=4,
        guidance_scale=5.0,
        bpm=90,
        keyscale="C major",
        timesignature="4",
        language="en",
        # Which the library has not.
        dcw=False,
    )
    theirs = library_audio(copy.deepcopy(components), request)
    knobs = Knobs(variant=variant)
    prepare(components, knobs)
    result = Pipeline(components, knobs, CpuDevice()).generate(request)
    assert math.isfinite(theirs.sum())
    # The tolerance is absolute: the audio is neither silent nor louder than full scale.
    assert 0.1 < np.abs(theirs).max() < 1
    for song, reference in zip(result.songs, theirs, strict=True):
        assert song.audio.shape == (2, request.samples)
        assert np.abs(song.audio - reference[:, : request.samples]).max() <= TOLERANCE


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_BASE])
@pytest.mark.parametrize(("batch", "frames"), [(1, 3_001), (3, 700), (8, 259)])
@torch.no_grad()
def test_the_velocity_is_the_library_s_and_no_song_sees_another(variant: Variant, batch: int, frames: int) -> None:
    components = build("tiny", variant, dtype=torch.float32)
    transformer = components.transformer
    draw = torch.Generator().manual_seed(frames)
    latents, context = (
        torch.randn(n, frames, width, generator=draw) for n, width in ((batch, TINY_LATENT), (1, 2 * TINY_LATENT))
    )
    condition = torch.randn(1, 77, transformer.condition_embedder.in_features, generator=draw)
    at = torch.full((batch,), 0.7)
    library = transformer(
        hidden_states=latents,
        timestep=at,
        timestep_r=at,
        encoder_hidden_states=condition.expand(batch, -1, -1),
        context_latents=context.expand(batch, -1, -1),
        return_dict=False,
    )[0]
    denoiser = Denoiser(transformer, Kernels(grouped=True), lambda _: nullcontext())
    embedded = denoiser.embed(condition)
    ours = denoiser.velocity(latents, context, embedded, 0.7)
    assert torch.allclose(ours, library, atol=TOLERANCE)
    for song in range(batch):
        assert torch.equal(denoiser.velocity(latents[song : song + 1], context, embedded, 0.7)[0], ours[song])
