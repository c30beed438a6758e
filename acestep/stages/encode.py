"""Words to conditions: what the DiT attends to, and the latents it starts beside."""

import msgspec
import torch
from torch import Tensor

from acestep.models.conditions import TIMBRE_FRAMES, ConditionEncoder
from acestep.models.prompts import lyric_prompt, text_prompt
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.stages.place import Place


class Conditions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What denoising needs of a request, on the device.

    `condition` [1, tokens, width] and its unguided counterpart `unguided` [1, 1, width]; `context` [1, frames, 128]:
    64 channels of source latents, then 64 of mask (1 where the song is to be made).
    """

    condition: Tensor
    unguided: Tensor
    context: Tensor


def encode(request: Request, place: Place) -> Conditions:
    """The conditions of a request; all of its songs share them."""
    parts, device = place.components, place.device
    text_ids = parts.tokenizer.encode(text_prompt(request), MAX_TEXT_TOKENS)
    lyric_ids = parts.tokenizer.encode(lyric_prompt(request), MAX_LYRIC_TOKENS)
    with place.placement.use("text_encoder"):
        text = parts.text_encoder(
            input_ids=device.upload(torch.tensor([text_ids]), "prompt"),
            position_ids=torch.arange(len(text_ids), device=device.torch_device)[None],
            # An explicit mask: building one would read a value back from the device.
            attention_mask={"full_attention": None},
            use_cache=False,
        ).last_hidden_state
        lyrics = parts.text_encoder.get_input_embeddings()(device.upload(torch.tensor([lyric_ids]), "prompt"))
    with place.placement.use("condition_encoder"):
        encoder = ConditionEncoder(parts.condition_encoder, place.kernels(), prepend_timbre_token=parts.variant.is_xl)
        silence = parts.condition_encoder.silence_latent.to(text.dtype)
        source = _silence(silence, request.latent_frames)
        return Conditions(
            condition=encoder.encode(text, lyrics, silence[:, :TIMBRE_FRAMES]),
            unguided=encoder.unguided().clone(),
            context=torch.cat([source, torch.ones_like(source)], dim=-1),
        )


def _silence(silence: Tensor, frames: int) -> Tensor:
    """Silent latents [1, frames, 64], repeated where the recorded silence ends."""
    return silence.repeat(1, -(-frames // silence.shape[1]), 1)[:, :frames]
