"""The DiT's forward: one velocity for a batch of latents at one timestep, computed a few rows at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import AceStepTransformer1DModel
from acestep.dit.attention import Kernels, rotary_table
from acestep.dit.blocks import EAGER, DenoiserBlock, RowFunctions, UseBlock
from acestep.limits.workspace import CHUNK_ROWS
from acestep.units import ceil_div


class Denoiser:
    """Velocity prediction over the weights of an `AceStepTransformer1DModel`.

    The timestep is a Python float shared by all songs, so its embedding is computed once and for one song.
    """

    def __init__(
        self,
        transformer: AceStepTransformer1DModel,
        kernels: Kernels,
        use_block: UseBlock,
        functions: RowFunctions = EAGER,
    ) -> None:
        self.transformer = transformer
        self.kernels = kernels
        self.use_block = use_block
        self.blocks = [DenoiserBlock(layer, functions) for layer in transformer.layers]

    def embed(self, condition: Tensor) -> Tensor:
        """Embed a condition once for all steps: the input of `velocity`, [1 or batch, tokens, width]."""
        embedder = self.transformer.condition_embedder
        # This tensor lives through every step, so it is allocated first: after the temporaries it would leave a gap.
        embedded = condition.new_empty(*condition.shape[:-1], embedder.out_features)
        return embedded.copy_(embedder(condition))

    def velocity(self, latents: Tensor, context: Tensor, condition: Tensor, timestep: float) -> Tensor:
        """Velocity [batch, frames, 64] of noisy `latents` [batch, frames, 64], in the dtype of the weights.

        `context` is [1 or batch, frames, 128] (source latents and mask), `condition` is the result of `embed`,
        `timestep` runs from 1 (noise) to 0 (song).
        """
        return self.velocities(latents, context, [condition], timestep)[0]

    def velocities(
        self, latents: Tensor, context: Tensor, conditions: Sequence[Tensor], timestep: float
    ) -> list[Tensor]:
        """Return what `velocity` returns for each condition, bit for bit.

        A block that is streamed comes to the device once for all of them. In return the rows of all of them are alive
        at the same time.
        """
        model = self.transformer
        embedded, modulation = self._timestep(timestep, conditions[0])
        hidden = [self._patchify(latents, context, condition) for condition in conditions]
        rotary = rotary_table(hidden[0].shape[1], model.head_dim, model.rope_theta, hidden[0])
        for block in self.blocks:
            with self.use_block(block.layer):
                for rows, condition in zip(hidden, conditions, strict=True):
                    block(rows, condition, modulation, rotary, self.kernels)
        return [self._velocity(rows, embedded, latents.shape) for rows in hidden]

    def _velocity(self, hidden: Tensor, embedded: Tensor, shape: torch.Size) -> Tensor:
        """The last layer: velocity of `shape` from the rows after the blocks."""
        model, (batch, frames, channels) = self.transformer, shape
        shift, scale = (model.scale_shift_table + embedded.unsqueeze(1)).chunk(2, dim=1)
        velocity = hidden.new_empty(batch, frames, channels)
        for song in range(batch):
            for tokens, frames_of in self._patches(hidden.shape[1], frames):
                normed = model.norm_out(hidden[song : song + 1, tokens]).mul_(1 + scale).add_(shift)
                out = model.proj_out_conv(normed.transpose(1, 2)).transpose(1, 2)
                velocity[song : song + 1, frames_of] = out[:, : frames_of.stop - frames_of.start]
        return velocity

    def _timestep(self, timestep: float, like: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [1, width] and [1, 6, width]; the second time path always sees t - r = 0 when sampling."""
        at = torch.full((1,), timestep, dtype=like.dtype, device=like.device)
        embedded, modulation = self.transformer.time_embed(at)
        embedded_r, modulation_r = self.transformer.time_embed_r(torch.zeros_like(at))
        return embedded + embedded_r, modulation + modulation_r

    def _patchify(self, latents: Tensor, context: Tensor, like: Tensor) -> Tensor:
        """Tokens [batch, ceil(frames / patch), width].

        Computed song by song, so that a song's values do not depend on others.
        """
        model, patch = self.transformer, self.transformer.patch_size
        batch, frames, _ = latents.shape
        hidden = like.new_empty(batch, ceil_div(frames, patch), model.proj_in_conv.out_channels)
        for song in range(batch):
            beside = context[song : song + 1] if context.shape[0] == batch else context
            for tokens, frames_of in self._patches(hidden.shape[1], frames):
                part = torch.cat(
                    [beside[:, frames_of].to(like.dtype), latents[song : song + 1, frames_of].to(like.dtype)], -1
                )
                missing = (tokens.stop - tokens.start) * patch - part.shape[1]
                if missing:
                    part = nn.functional.pad(part, (0, 0, 0, missing))
                hidden[song : song + 1, tokens] = model.proj_in_conv(part.transpose(1, 2)).transpose(1, 2)
        return hidden

    def _patches(self, tokens: int, frames: int) -> list[tuple[slice, slice]]:
        """Token slices and the frame slices they cover; patches do not overlap, so cutting between any two is exact."""
        patch = self.transformer.patch_size
        cuts = range(0, tokens, CHUNK_ROWS)
        return [
            (slice(c, min(tokens, c + CHUNK_ROWS)), slice(c * patch, min(frames, (c + CHUNK_ROWS) * patch)))
            for c in cuts
        ]
