"""Audio to latents, tile by tile: exact, with at most three tensors of the widest layer in memory.

The encoder's receptive field reaches 7 latent frames to each side (measured in float64), so tiles that overlap by 8
frames and drop the overlap give the same latents as one piece.
"""

import numpy as np
import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import OobleckEncoder
from acestep.clip import LATENT_HOP
from acestep.devices.base import Device
from acestep.dit.snake import Snakes
from acestep.dit.vae_decode import residual, tiles
from acestep.units import Check, unchecked

ENCODE_OVERLAP_FRAMES = 8
TILE_FRAMES = 128
"""Latent frames of one tile (5 s), overlap included: about 0.18 GiB of activations at full size."""


class TileEncoder(nn.Module):
    """Forward of an `OobleckEncoder`, which is where it computes, with less memory: `fused` as for `Snakes`."""

    def __init__(self, encoder: OobleckEncoder, *, fused: bool = False) -> None:
        super().__init__()
        self.encoder: OobleckEncoder = encoder
        self.snakes = Snakes(encoder, fused=fused)

    def forward(self, audio: Tensor) -> Tensor:
        """Means [1, 64, samples / 1920 rounded down] of the posteriors of `audio` [1, 2, samples].

        The library samples from the posterior; its mean is the same for every seed, batch and card.
        """
        encoder = self.encoder
        hidden = encoder.conv1(audio)
        for block in encoder.block:
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                hidden = residual(hidden, unit, self.snakes)
            hidden = block.conv1(self.snakes.in_place(hidden, block.snake1))
        mean, _ = encoder.conv2(self.snakes.in_place(hidden, encoder.snake1)).chunk(2, dim=1)
        return mean  # type: ignore[no-any-return]


def encode_clip(encoder: TileEncoder, audio: np.ndarray, device: Device, check: Check = unchecked) -> Tensor:
    """Encode `audio` [2, samples] on the host to latents [1, frames, 64] on the device, in the dtype of the weights.

    A remainder shorter than one frame gives no frame. `check` is called before each tile.
    """
    frames, convolution = audio.shape[1] // LATENT_HOP, encoder.encoder.conv2
    dtype = convolution.weight.dtype
    latents = torch.empty(1, frames, convolution.out_channels // 2, dtype=dtype, device=device.torch_device)
    for first, last, keep_first, keep_last in tiles(frames, TILE_FRAMES, ENCODE_OVERLAP_FRAMES):
        check()
        # The last tile includes the samples after the last whole frame, as an encoding in one piece does.
        part = audio[:, first * LATENT_HOP : last * LATENT_HOP if last < frames else None]
        # Copied, because PyTorch takes no reversed arrays and warns about read-only ones.
        owned = torch.empty(part.shape)
        owned.numpy()[:] = part
        piece = encoder(device.upload(owned.to(dtype)[None], "audio"))
        latents[:, keep_first:keep_last] = piece[:, :, keep_first - first : keep_last - first].transpose(1, 2)
        del piece
    return latents
