"""Latents to audio, tile by tile: exact, and with three tensors of the widest layer at most.

The decoder's receptive field reaches 8.29 latent frames to each side (measured in float64), so tiles that overlap by
10 frames and drop the overlap give the same audio as one piece.
"""

from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from acestep.devices.base import Device
from acestep.memory.snake import residual, snake_
from acestep.models.libraries import AutoencoderOobleck, OobleckDecoder
from acestep.request import LATENT_HOP

OVERLAP_FRAMES = 10
TILE_FRAMES = 256
"""Latent frames of one tile, overlap included: about 0.36 GiB of activations at full size."""


def fold_weight_norm(vae: AutoencoderOobleck) -> None:
    """Replace every weight-norm pair by its product, so that no derived copy appears on the device and stays there."""
    for module in vae.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)


class TileDecoder(nn.Module):
    """Forward over an `OobleckDecoder` with in-place Snake activations and references dropped early; same values."""

    def __init__(self, decoder: OobleckDecoder) -> None:
        super().__init__()
        self.decoder: OobleckDecoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Audio [1, 2, frames * 1920] of latents [1, 64, frames]."""
        decoder = self.decoder
        hidden = decoder.conv1(latents)
        for block in decoder.block:
            hidden = block.conv_t1(snake_(hidden, block.snake1))
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                hidden = residual(hidden, unit)
        return decoder.conv2(snake_(hidden, decoder.snake1))  # type: ignore[no-any-return]


def tiles(frames: int, tile: int) -> Iterator[tuple[int, int, int, int]]:
    """Cuts `frames` into (first, last, keep_first, keep_last): decode first..last, keep keep_first..keep_last."""
    if frames <= tile:
        yield 0, frames, 0, frames
        return
    stride = tile - 2 * OVERLAP_FRAMES
    for start in range(0, frames, stride):
        end = min(frames, start + stride)
        yield max(0, start - OVERLAP_FRAMES), min(frames, end + OVERLAP_FRAMES), start, end


def decode_song(decoder: TileDecoder, latents: Tensor, samples: int, device: Device, tile: int) -> np.ndarray:
    """Audio [2, samples] float32 on the host from one song's latents [frames, 64]; leaves the device tile by tile."""
    audio = np.empty((2, samples), dtype=np.float32)
    dtype = decoder.decoder.conv1.weight.dtype
    for first, last, keep_first, keep_last in tiles(latents.shape[0], tile):
        piece = decoder(latents[first:last].to(dtype).T[None])
        begin, end = keep_first * LATENT_HOP, min(samples, keep_last * LATENT_HOP)
        skip = (keep_first - first) * LATENT_HOP
        device.download(audio[:, begin:end], piece[0, :, skip : skip + end - begin].float())
        del piece
    return audio
