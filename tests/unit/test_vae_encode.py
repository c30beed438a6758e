"""Encoding by tiles is encoding in one piece, whatever the length."""

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.clip import LATENT_HOP
from acestep.devices.cpu import CpuDevice
from acestep.dit import vae_encode
from acestep.dit.vae_decode import fold_weight_norm
from acestep.dit.vae_encode import ENCODE_OVERLAP_FRAMES, TileEncoder, encode_clip


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    return build("tiny", dtype=torch.float32).vae


def _noise(samples: int) -> np.ndarray:
    return (0.3 * np.random.default_rng(samples).standard_normal((2, samples))).astype(np.float32)


# One frame, a rest below a frame, several tiles; the last sample of 47,999 makes no frame.
@pytest.mark.parametrize("samples", [LATENT_HOP, 47_999, 100 * LATENT_HOP, 131 * LATENT_HOP + 1_919])
@torch.no_grad()
def test_latents_are_the_mean_of_the_library_s_posterior(
    monkeypatch: pytest.MonkeyPatch, vae: torch.nn.Module, samples: int
) -> None:
    monkeypatch.setattr(vae_encode, "TILE_FRAMES", 40)
    audio = _noise(samples)
    library = vae.encode(torch.from_numpy(audio)[None]).latent_dist.mean.transpose(1, 2)
    fold_weight_norm(vae)
    ours = encode_clip(TileEncoder(vae.encoder), audio, CpuDevice())
    assert ours.shape == (1, samples // LATENT_HOP, library.shape[-1])
    assert torch.allclose(ours, library, atol=1e-5)


@pytest.mark.parametrize("way", ["backwards", "sides swapped", "not writable"])
@torch.no_grad()
def test_audio_may_lie_in_memory_as_it_likes(vae: torch.nn.Module, way: str) -> None:
    audio = _noise(3 * LATENT_HOP)
    heard = {"backwards": audio[:, ::-1], "sides swapped": audio[::-1], "not writable": audio}[way]
    audio.flags.writeable = way != "not writable"
    fold_weight_norm(vae)
    encoder = TileEncoder(vae.encoder)
    assert torch.equal(encode_clip(encoder, heard, CpuDevice()), encode_clip(encoder, heard.copy(), CpuDevice()))


@torch.no_grad()
def test_the_receptive_field_ends_within_the_overlap(vae: torch.nn.Module) -> None:
    """A click changes the frames around it and none that is farther away than the overlap."""
    fold_weight_norm(vae)
    encoder = TileEncoder(vae.encoder.to(torch.float64))
    quiet = torch.zeros(1, 2, 40 * LATENT_HOP, dtype=torch.float64)
    for at in (20 * LATENT_HOP, 21 * LATENT_HOP - 1):
        click = quiet.clone()
        click[..., at] = 1.0
        heard = (encoder(click) - encoder(quiet.clone())).abs().amax(dim=(0, 1)).nonzero().flatten()
        assert 20 - ENCODE_OVERLAP_FRAMES <= heard.min() < heard.max() <= 20 + ENCODE_OVERLAP_FRAMES
        assert heard.max() - heard.min() >= ENCODE_OVERLAP_FRAMES
    vae.float()
