"""Latents to audio tokens and back, a few windows at a time, are the library's; codes are tokens by number."""

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.build import TINY_LATENT, build
from acestep.checkpoints.components import Components
from acestep.dit import audio_tokens
from acestep.dit.attention import Kernels
from acestep.dit.audio_tokens import AudioDetokenizer, AudioTokenizer
from acestep.request import MAX_AUDIO_CODE
from acestep.units import ceil_div

KERNELS = Kernels(grouped=True)


@pytest.fixture(scope="module")
def parts() -> Components:
    return build("tiny", dtype=torch.float32)


def _latents(frames: int) -> Tensor:
    return torch.randn(1, frames, TINY_LATENT, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [1, 5, 7, 2_503])
@torch.no_grad()
def test_encoding_and_decoding_tokens_equals_the_library_for_any_length(parts: Components, frames: int) -> None:
    silence = parts.condition_encoder.silence_latent
    library, _ = parts.audio_tokenizer.tokenize(_latents(frames), silence)
    tokens = AudioTokenizer(parts.audio_tokenizer, KERNELS).tokens(_latents(frames), silence)
    assert tokens.shape == (1, ceil_div(frames, 5), library.shape[-1])
    assert torch.allclose(tokens, library, atol=1e-5)
    latents = AudioDetokenizer(parts.audio_token_detokenizer, KERNELS).latents(tokens)
    assert torch.allclose(latents, parts.audio_token_detokenizer(library), atol=1e-5)


@torch.no_grad()
def test_codes_are_the_tokens_they_name(parts: Components) -> None:
    _, indices = parts.audio_tokenizer.tokenize(_latents(200))
    ours = AudioTokenizer(parts.audio_tokenizer, KERNELS)
    tokens = ours.tokens(_latents(200), parts.condition_encoder.silence_latent)
    assert torch.allclose(ours.tokens_of(indices[:, :, 0]), tokens, atol=1e-5)
    assert parts.audio_tokenizer.quantizer.codebook_size == MAX_AUDIO_CODE + 1


@torch.no_grad()
def test_the_number_of_windows_per_pass_does_not_change_the_result(
    parts: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = parts.condition_encoder.silence_latent
    tokens = AudioTokenizer(parts.audio_tokenizer, KERNELS).tokens(_latents(333), silence)
    monkeypatch.setattr(audio_tokens, "CHUNK_ROWS", 20)
    few = AudioTokenizer(parts.audio_tokenizer, KERNELS).tokens(_latents(333), silence)
    assert torch.allclose(few, tokens, atol=1e-5)
