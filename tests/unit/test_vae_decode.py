"""Decoding by tiles is decoding in one piece."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.build import TINY_LATENT, build
from acestep.devices.cpu import CpuDevice
from acestep.dit.vae_decode import CHUNK_VARIABLE, TILES, TileDecoder, chunk_from, decode_song, fold_weight_norm
from acestep.errors import UsageError
from acestep.request import LATENT_HOP


@given(st.text() | st.integers().map(str) | st.sampled_from(["9" * 5_000, "１２８", "+64", " 64 ", "0x40", "6_4"]))
def test_a_tile_asked_for_is_one_that_tiling_can_use_or_an_error_that_names_the_variable(text: str) -> None:
    wanted = text.strip() or "0"
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 10 and (int(wanted) >= TILES[0] or not text.strip()):
        assert chunk_from({CHUNK_VARIABLE: text}) == int(wanted)
    else:
        with pytest.raises(UsageError, match=CHUNK_VARIABLE):
            chunk_from({CHUNK_VARIABLE: text})


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    return build("tiny", dtype=torch.float32).vae


@torch.no_grad()
def test_our_forward_is_bit_equal_to_the_library_and_tiles_are_exact(vae: torch.nn.Module) -> None:
    latents = torch.randn(1, TINY_LATENT, 150, generator=torch.Generator().manual_seed(1))
    library = vae.decode(latents).sample
    fold_weight_norm(vae)
    assert not any(name.endswith(("weight_g", "weight_v")) for name in vae.state_dict())
    decoder = TileDecoder(vae.decoder)
    assert torch.equal(decoder(latents.clone()), library)
    samples = 150 * LATENT_HOP - 700
    for tile in (64, 100, 150):
        audio = decode_song(decoder, latents[0].T, samples, CpuDevice(), tile)
        assert audio.shape == (2, samples)
        assert np.abs(audio - library[0, :, :samples].numpy()).max() <= 1e-5


@torch.no_grad()
def test_an_overlap_within_the_receptive_field_would_show(
    monkeypatch: pytest.MonkeyPatch, vae: torch.nn.Module
) -> None:
    """The exactness above is not trivial: with two frames of overlap the joins differ measurably."""
    fold_weight_norm(vae)
    decoder = TileDecoder(vae.decoder)
    latents = torch.randn(100, TINY_LATENT, generator=torch.Generator().manual_seed(2))
    whole = decode_song(decoder, latents, 100 * LATENT_HOP, CpuDevice(), 100)
    monkeypatch.setattr("acestep.dit.vae_decode.DECODE_OVERLAP_FRAMES", 2)
    cut = decode_song(decoder, latents, 100 * LATENT_HOP, CpuDevice(), 30)
    assert np.abs(cut - whole).max() > 1e-4 * np.abs(whole).max()
