"""The condition the DiT attends to: lyrics, timbre and text of one caption, packed in that order."""

from contextlib import nullcontext

import torch
from torch import Tensor

from acestep.checkpoints.libraries import AceStepConditionEncoder
from acestep.dit.attention import Kernels
from acestep.dit.blocks import UseBlock, run_stack

TIMBRE_FRAMES = 750
"""Latent frames of timbre reference (30 s); without a reference it is silence, as in training."""


class ConditionEncoder:
    """Memory-saving forward over the weights of an `AceStepConditionEncoder`.

    All songs of a request share one caption, so it runs at batch 1, without padding and masks, and packing is
    concatenation. `prepend_timbre_token` restores the learned token of the XL variants, which the library drops: it
    precedes the reference frames and is the position that is pooled.
    """

    def __init__(
        self,
        encoder: AceStepConditionEncoder,
        kernels: Kernels,
        *,
        prepend_timbre_token: bool,
        use_block: UseBlock = lambda _: nullcontext(),
    ) -> None:
        self.encoder = encoder
        self.use_block = use_block
        self.kernels = kernels
        self.prepend_timbre_token = prepend_timbre_token

    def shared(self, lyrics: Tensor, timbre: Tensor) -> Tensor:
        """The part of the condition before the text, the same for every prompt of a song: [1, lyric tokens + 1, width].

        `lyrics` [1, tokens, text width] come from the text encoder's embedding table, `timbre` [1, frames, 64] are
        reference latents.
        """
        lyric_encoder, timbre_encoder = self.encoder.lyric_encoder, self.encoder.timbre_encoder
        lyric_states = run_stack(lyric_encoder, lyric_encoder.embed_tokens(lyrics), self.kernels, self.use_block)
        frames = timbre_encoder.embed_tokens(timbre)
        if self.prepend_timbre_token:
            frames = torch.cat([timbre_encoder.special_token.to(frames.dtype), frames], dim=1)
        timbre_state = run_stack(timbre_encoder, frames, self.kernels, self.use_block)[:, :1]
        return torch.cat([lyric_states, timbre_state], dim=1)

    def condition(self, shared: Tensor, text: Tensor) -> Tensor:
        """Condition [1, lyric tokens + 1 + text tokens, width]; `text` [1, tokens, text width] is encoded."""
        return torch.cat([shared, self.encoder.text_projector(text)], dim=1)

    def unguided(self) -> Tensor:
        """The learned empty condition [1, 1, width]; attention to one token equals attention to copies of it."""
        token: Tensor = self.encoder.null_condition_emb
        return token
