"""Latents to 5 Hz audio tokens and back; a cover follows these tokens of its source."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import AceStepAudioTokenDetokenizer, AceStepAudioTokenizer
from acestep.dit.attention import Kernels
from acestep.dit.blocks import UseBlock, run_stack
from acestep.limits.workspace import CHUNK_ROWS
from acestep.units import ceil_div


class AudioTokenizer:
    """Memory-saving forward of an `AceStepAudioTokenizer`: each window of five frames is independent."""

    def __init__(
        self, tokenizer: AceStepAudioTokenizer, kernels: Kernels, use_block: UseBlock = lambda _: nullcontext()
    ) -> None:
        self.tokenizer = tokenizer
        self.kernels = kernels
        self.use_block = use_block

    def tokens(self, latents: Tensor, silence: Tensor) -> Tensor:
        """Quantised tokens [1, ceil(frames / 5), width] of `latents` [1, frames, 64].

        The last window is padded with the start of `silence` [1, frames, 64].
        """
        quantizer, count = self.tokenizer.quantizer, ceil_div(latents.shape[1], self.tokenizer.pool_window_size)
        tokens = latents.new_empty(1, count, quantizer.project_out.out_features)
        for part, pooled in self._pooled(latents, silence):
            tokens[:, part] = quantizer(pooled)[0]
        return tokens

    def codes(self, latents: Tensor, silence: Tensor) -> Tensor:
        """The codes [ceil(frames / 5)] of these tokens."""
        found = [self.tokenizer.quantizer(pooled)[1] for _, pooled in self._pooled(latents, silence)]
        # Of several quantisers only the first one's codes are returned, as in the library.
        return torch.cat([indices[0, :, 0] for indices in found])

    def _pooled(self, latents: Tensor, silence: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the values to quantise of some windows, [1, windows, width], and the slice of these windows."""
        tokenizer, pooler = self.tokenizer, self.tokenizer.attention_pooler
        window = tokenizer.pool_window_size
        missing = -latents.shape[1] % window
        if missing:
            latents = torch.cat([latents, silence[:, :missing]], dim=1)
        windows = latents.reshape(-1, window, latents.shape[-1])
        for part in _chunks(len(windows), window + 1):
            frames = pooler.embed_tokens(tokenizer.audio_acoustic_proj(windows[part]))
            summary = pooler.special_token.to(frames.dtype).expand(len(frames), -1, -1)
            yield part, run_stack(pooler, torch.cat([summary, frames], dim=1), self.kernels, self.use_block)[None, :, 0]

    def tokens_of(self, codes: Tensor) -> Tensor:
        """The tokens [songs, codes, width] that `codes` [songs, codes] stand for."""
        quantizer = self.tokenizer.quantizer
        # Of several quantisers only the first one is used, as in the library.
        indices = nn.functional.pad(codes[:, :, None], (0, quantizer.num_quantizers - 1))
        tokens: Tensor = quantizer.get_output_from_indices(indices)
        return tokens


class AudioDetokenizer:
    """Memory-saving forward of an `AceStepAudioTokenDetokenizer`: each token becomes five frames independently."""

    def __init__(
        self, detokenizer: AceStepAudioTokenDetokenizer, kernels: Kernels, use_block: UseBlock = lambda _: nullcontext()
    ) -> None:
        self.detokenizer = detokenizer
        self.kernels = kernels
        self.use_block = use_block

    def latents(self, tokens: Tensor) -> Tensor:
        """Latents [1, tokens * 5, 64] of `tokens` [1, tokens, width]."""
        model = self.detokenizer
        window, count = model.pool_window_size, tokens.shape[1]
        latents = tokens.new_empty(1, count * window, model.proj_out.out_features)
        for part in _chunks(count, window):
            frames = model.embed_tokens(tokens[0, part])[:, None] + model.special_tokens.to(tokens.dtype)
            made = model.proj_out(run_stack(model, frames, self.kernels, self.use_block))
            latents[0, part.start * window : part.stop * window] = made.flatten(0, 1)
        return latents


def _chunks(windows: int, positions: int) -> Iterator[slice]:
    """Slices of windows that hold about `CHUNK_ROWS` rows."""
    step = CHUNK_ROWS // positions
    for start in range(0, windows, step):
        yield slice(start, min(windows, start + step))
