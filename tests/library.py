"""The library's own pipeline over the same weights, as the reference for ours."""

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from torch import Tensor, nn

from acestep.checkpoints.build import TINY_LATENT
from acestep.checkpoints.components import Components
from acestep.clip import Clip
from acestep.dit.sampler import guidance_for, noise, steps_for
from acestep.request import Request


class _LibraryTokenizer:
    """Our byte tokenizer behind the call signature that the library uses; all rows are alike, so nothing is padded."""

    def __init__(self, components: Components) -> None:
        self._tokenizer = components.tokenizer

    def __call__(self, texts: list[str], max_length: int, **_: object) -> object:
        ids = torch.tensor([self._tokenizer.encode(text, max_length) for text in texts])
        return type("Encoding", (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


class _WithToken(nn.Module):
    """The timbre encoder's first layer, with the learned token of the XL variants in front: the library forgets it."""

    def __init__(self, timbre_encoder: nn.Module) -> None:
        super().__init__()
        self.embed, self.token = timbre_encoder.embed_tokens, timbre_encoder.special_token

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([self.token, self.embed(frames)], dim=1)


def library_pipeline(components: Components) -> AceStepPipeline:
    """The library's pipeline over these weights, which are the caller's to throw away."""
    if components.variant.is_xl:
        timbre_encoder = components.condition_encoder.timbre_encoder
        timbre_encoder.embed_tokens = _WithToken(timbre_encoder)
    pipe = AceStepPipeline(
        vae=components.vae,
        text_encoder=components.text_encoder,
        tokenizer=None,
        transformer=components.transformer,
        condition_encoder=components.condition_encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=components.audio_tokenizer,
        audio_token_detokenizer=components.audio_token_detokenizer,
    )
    pipe.tokenizer = _LibraryTokenizer(components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def library_audio(components: Components, request: Request) -> np.ndarray:
    """Raw audio [batch, 2, samples] of the library's pipeline, encoded and decoded in one piece.

    The library draws audio latents from the VAE's posterior; here it takes the mean, as we do. `components` are the
    caller's to throw away.
    """
    pipe = library_pipeline(components)
    latents = torch.stack([noise(request.seed + k, request.latent_frames, TINY_LATENT) for k in range(request.batch)])
    with patch.object(OobleckDiagonalGaussianDistribution, "sample", OobleckDiagonalGaussianDistribution.mode):
        out = pipe(latents=latents, output_type="latent", **library_arguments(components, request))
    with torch.no_grad():
        audio: Tensor = components.vae.decode(out.audios.transpose(1, 2)).sample
    return audio.numpy()


def library_arguments(components: Components, request: Request) -> dict[str, Any]:
    """A request as the library's pipeline is called with it."""
    first, last = request.guidance_interval
    return {
        "prompt": [request.caption] * request.batch,
        "lyrics": [request.lyrics] * request.batch,
        "vocal_language": request.language,
        "audio_duration": request.duration_s,
        "num_inference_steps": steps_for(components.variant, request.steps),
        "guidance_scale": guidance_for(components.variant, request.guidance_scale),
        "shift": request.shift,
        "bpm": request.bpm or None,
        "keyscale": request.keyscale,
        "timesignature": request.timesignature,
        "task_type": request.task.value,
        "src_audio": _tensor(request.source_audio),
        "reference_audio": _tensor(request.reference_audio),
        "audio_codes": "".join(f"<|audio_code_{code}|>" for code in request.audio_codes) or None,
        "repainting_start": request.repaint_start_s,
        "repainting_end": request.repaint_end_s,
        "audio_cover_strength": request.cover_strength,
        "track_name": request.track,
        "complete_track_classes": list(request.tracks),
        "cfg_interval_start": first,
        "cfg_interval_end": last,
    }


def _tensor(clip: Clip | None) -> Tensor | None:
    return None if clip is None else torch.from_numpy(clip.audio)
