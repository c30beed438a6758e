"""The audio of a request to latents: the source that songs start from, and the reference for the timbre."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import torch
from torch import Tensor

from acestep.clip import SAMPLE_RATE, Clip
from acestep.dit.audio_tokens import AudioDetokenizer, AudioTokenizer
from acestep.dit.place import StageContext
from acestep.dit.vae_encode import TileEncoder, encode_clip
from acestep.errors import InvalidInputError
from acestep.request import CODE_FRAMES, Request, SongCodes, Task
from acestep.units import Check, ceil_div, unchecked

REFERENCE_S = 30
"""Seconds of reference that the timbre encoder was trained on: ten each from the start, the middle and the end."""


class Brought(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Latents on the device: `source` [1 or songs, frames, 64], `reference` [1, 750, 64]; None if not given.

    `recorded` [1, frames, 64] is the source audio itself, which for a cover is not what the song follows.
    """

    source: Tensor | None = None
    recorded: Tensor | None = None
    reference: Tensor | None = None


def encode_audio(
    request: Request, place: StageContext, codes: SongCodes | None = None, check: Check = unchecked
) -> Brought:
    """Return the latents of a request's audio, or of `codes`; a cover's source goes through audio tokens and back.

    `check` is called before each tile of audio.
    """
    recorded = reference = None
    if request.source_audio is not None or request.reference_audio is not None:
        with place.placement.use("vae_encoder"):
            encoder = _encoder(place)
            if request.source_audio is not None:
                recorded = _source(request.source_audio, request.duration_s, encoder, place, check)
            if request.reference_audio is not None:
                reference = encode_clip(encoder, excerpts(request.reference_audio), place.device, check)
    source = None
    if request.task is Task.COVER or codes is not None:
        # Before it is lengthened: so a cover of a recording is that of its codes.
        source = _through_tokens(request, recorded, codes or (request.audio_codes,), place)
    if recorded is not None:
        recorded = _lengthened(recorded, request, place)
        source = recorded if source is None else source
    return Brought(source=source, recorded=recorded if request.starts_from_source else None, reference=reference)


def codes_of_clip(clip: Clip, place: StageContext, check: Check = unchecked) -> tuple[int, ...]:
    """Return the audio codes of a clip, five for each second: those that a cover of it follows.

    `check` is called before each tile of audio. Raises `InvalidInputError` for a checkpoint without audio tokenizer.
    """
    with place.placement.use("vae_encoder"):
        source = _source(clip, clip.duration_s, _encoder(place), place, check)
    with _tokenizing(place) as tokenizer:
        codes = tokenizer.codes(source, _silence(place, source, CODE_FRAMES - 1))
    return tuple(codes.tolist())


def excerpts(clip: Clip) -> np.ndarray:
    """Ten seconds each from the start, the middle and the end of a clip; a shorter clip is repeated."""
    audio, third = clip.audio, REFERENCE_S // 3 * SAMPLE_RATE
    if clip.samples < 3 * third:
        audio = np.tile(audio, (1, ceil_div(3 * third, clip.samples)))
    samples = audio.shape[1]
    return np.concatenate([audio[:, start : start + third] for start in (0, samples // 3, samples - third)], axis=1)


def _encoder(place: StageContext) -> TileEncoder:
    return TileEncoder(place.components.vae.encoder, fused=place.device.has_triton)


def _source(clip: Clip, seconds: float, encoder: TileEncoder, place: StageContext, check: Check) -> Tensor:
    """Latents [1, frames, 64] of the first seconds of a clip."""
    return encode_clip(encoder, clip.audio[:, : round(seconds * SAMPLE_RATE)], place.device, check)


@contextmanager
def _tokenizing(place: StageContext) -> Iterator[AudioTokenizer]:
    """The audio tokenizer, on the device; raises `InvalidInputError` for a checkpoint that has none."""
    parts = place.components
    if parts.audio_tokenizer is None or parts.audio_token_detokenizer is None:
        raise InvalidInputError(
            parts.variant.value, "this checkpoint has no audio tokenizer, which a cover needs; choose another model"
        )
    with place.placement.use("audio_tokenizer"):
        yield AudioTokenizer(parts.audio_tokenizer, place.kernels(), place.placement.use_block)


def _through_tokens(request: Request, source: Tensor | None, songs: SongCodes, place: StageContext) -> Tensor:
    """Latents [1 or songs, frames, 64] from the tokens of a source, or from the songs' codes if there is no source."""
    parts, device, frames = place.components, place.device, request.latent_frames
    with _tokenizing(place) as tokenizer:
        if source is None:
            codes = torch.tensor([song[: ceil_div(frames, CODE_FRAMES)] for song in songs])
            tokens = tokenizer.tokens_of(device.upload(codes, "audio"))
        else:
            tokens = tokenizer.tokens(source, _silence(place, source, CODE_FRAMES - 1))
    with place.placement.use("audio_token_detokenizer"):
        detokenizer = AudioDetokenizer(parts.audio_token_detokenizer, place.kernels(), place.placement.use_block)
        made = [detokenizer.latents(tokens[song : song + 1])[:, :frames] for song in range(len(tokens))]
    return _lengthened(torch.cat(made) if len(made) > 1 else made[0], request, place)


def _lengthened(latents: Tensor, request: Request, place: StageContext) -> Tensor:
    """Return `latents` [songs, frames, 64] with silence after them, where a song is computed in more frames."""
    missing = request.latent_frames - latents.shape[1]
    if missing <= 0:
        return latents
    silence = _silence(place, latents, missing)
    return torch.cat([latents, silence.expand(len(latents), -1, -1)], dim=1)


def _silence(place: StageContext, like: Tensor, frames: int) -> Tensor:
    """The first frames of silence [1, frames, 64] on `like`'s device."""
    silence: Tensor = place.components.condition_encoder.silence_latent[:, :frames]
    if silence.device != like.device:
        silence = place.device.upload(silence, "audio")
    return silence.to(like.dtype)
