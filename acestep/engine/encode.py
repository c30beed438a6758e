"""Words to conditions: what the DiT attends to, and the latents that it takes as context."""

import msgspec
import torch
from torch import Tensor

from acestep.dit.conditions import TIMBRE_FRAMES, ConditionEncoder
from acestep.dit.place import StageContext
from acestep.dit.prompts import TEXT_INSTRUCTION, lyric_prompt, text_prompt
from acestep.engine.encode_audio import Brought
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request, Task
from acestep.units import ceil_div


class Conditions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The inputs of denoising for a request, on the device.

    `condition` [1, tokens, width] and its unguided counterpart `unguided` [1, 1, width]; `context` [1 or songs, frames,
    128]: 64 channels of source latents, then 64 of mask (1 where the song is generated). `uncovered` is the condition
    that a weaker cover is blended with, `recorded` [1, frames, 64] the source's latents if the steps need them.
    """

    condition: Tensor
    unguided: Tensor
    context: Tensor
    uncovered: Tensor | None = None
    recorded: Tensor | None = None

    def of(self, first: int, after: int) -> "Conditions":
        """Return the conditions of the songs from `first` up to but not including `after`."""
        if len(self.context) == 1:
            return self
        return msgspec.structs.replace(self, context=self.context[first:after])


NO_AUDIO = Brought()


def encode(request: Request, place: StageContext, brought: Brought = NO_AUDIO) -> Conditions:
    """Compute the conditions of a request and of its audio latents `brought`; all its songs share them."""
    parts, device = place.components, place.device
    instructions = (None, TEXT_INSTRUCTION) if request.cover_strength < 1 else (None,)
    prompts = [parts.tokenizer.encode(text_prompt(request, told), MAX_TEXT_TOKENS) for told in instructions]
    lyric_ids = parts.tokenizer.encode(lyric_prompt(request), MAX_LYRIC_TOKENS)
    with place.placement.use("text_encoder"):
        texts = [_text_states(prompt, place) for prompt in prompts]
        lyrics = parts.text_encoder.get_input_embeddings()(device.upload(torch.tensor([lyric_ids]), "prompt"))
    with place.placement.use("condition_encoder"):
        encoder = ConditionEncoder(
            parts.condition_encoder,
            place.kernels(),
            prepend_timbre_token=parts.variant.is_xl,
            use_block=place.placement.use_block,
        )
        silence = parts.condition_encoder.silence_latent.to(lyrics.dtype)
        timbre = silence[:, :TIMBRE_FRAMES] if brought.reference is None else brought.reference
        shared = encoder.shared(lyrics, timbre.to(lyrics.dtype))
        conditions = [encoder.condition(shared, text) for text in texts]
        return Conditions(
            condition=conditions[0],
            unguided=encoder.unguided().clone(),
            context=_context(request, brought.source, silence),
            uncovered=conditions[1] if len(conditions) > 1 else None,
            recorded=brought.recorded if request.starts_from_source else None,
        )


def _text_states(ids: list[int], place: StageContext) -> Tensor:
    """The text encoder's output [1, tokens, width]."""
    device = place.device
    states: Tensor = place.components.text_encoder(
        input_ids=device.upload(torch.tensor([ids]), "prompt"),
        position_ids=torch.arange(len(ids), device=device.torch_device)[None],
        # An explicit mask, because the library would read a value back from the device to build one.
        attention_mask={"full_attention": None},
        use_cache=False,
    ).last_hidden_state
    return states


def _context(request: Request, source: Tensor | None, silence: Tensor) -> Tensor:
    """The source latents of the songs, and the mask of what is generated: [1 or songs, frames, 128]."""
    made, channels = slice(request.window.start, request.window.stop), silence.shape[-1]
    silent = _silence(silence, request.latent_frames)
    beside = silent if source is None else source.to(silence.dtype)
    context = torch.cat([beside, torch.zeros_like(beside)], dim=-1)
    context[:, made, channels:] = 1
    if request.task is Task.REPAINT:
        context[:, made, :channels] = silent[:, made]
    return context


def _silence(silence: Tensor, frames: int) -> Tensor:
    """Silent latents [1, frames, 64], repeated after the end of the recorded silence."""
    return silence.repeat(1, ceil_div(frames, silence.shape[1]), 1)[:, :frames]
