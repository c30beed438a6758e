"""Latents to audio, tile by tile: exact, with at most three tensors of the widest layer in memory.

The decoder's receptive field reaches 8.29 latent frames to each side (measured in float64), so tiles that overlap by 10
frames and drop the overlap give the same audio as one piece.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from acestep.checkpoints.libraries import AutoencoderOobleck, OobleckDecoder, OobleckResidualUnit
from acestep.devices.base import Device
from acestep.dit.snake import Snakes
from acestep.errors import UsageError
from acestep.request import LATENT_HOP
from acestep.units import Check, unchecked


def tiles(frames: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut `frames` into (first, last, keep_first, keep_last): compute first..last, keep keep_first..keep_last.

    A tile is at most `tile` frames long. At each inner end `overlap` frames of it are computed and dropped; ``tile > 2
    * overlap``.
    """
    if frames <= tile:
        yield 0, frames, 0, frames
        return
    stride = tile - 2 * overlap
    for start in range(0, frames, stride):
        end = min(frames, start + stride)
        yield max(0, start - overlap), min(frames, end + overlap), start, end


def residual(hidden: Tensor, unit: OobleckResidualUnit, snakes: Snakes) -> Tensor:
    """Apply a residual unit to `hidden` [1, channels, samples]; at the peak three tensors of that size exist."""
    inner = unit.conv1(snakes.new(hidden, unit.snake1))
    inner = unit.conv2(snakes.in_place(inner, unit.snake2))
    summed: Tensor = inner.add_(hidden)
    return summed


DECODE_OVERLAP_FRAMES = 10

TILES = (64, 128, 256, 512, 1024, 1536)
"""Latent frames of a tile, overlap included; larger ones waste less on overlap (31 % at 64, 1 % at 1536)."""

LIVE_TENSORS = 3
"""Tensors of the widest layer's size that `TileDecoder.forward` holds at its peak, in a residual unit."""

WORKSPACE_TENSORS = 2
"""Extra memory of a convolution that PyTorch does not show: cuDNN's copies of its input and output in another layout.
"""

FRAGMENTATION = 1.45
"""Factor for fragmentation over live bytes.

The simulated allocator needs 1.40 at every tile: two freed tensors are large enough together for a convolution's
copies, but are not contiguous (`tests/integration/test_decode_ladder.py`).
"""

CHUNK_VARIABLE = "ACESTEP_VAE_CHUNK"

MOST_DIGITS = 9
"""Longest accepted value of ACESTEP_VAE_CHUNK, in digits: longer than any song needs, short enough for `int()`."""


def fold_weight_norm(vae: AutoencoderOobleck) -> None:
    """Replace every weight-norm pair by its product, so that no derived copy is made and kept on the device."""
    for module in vae.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)


class TileDecoder(nn.Module):
    """Forward of an `OobleckDecoder`, which is where it computes, with less memory: `fused` as for `Snakes`."""

    def __init__(self, decoder: OobleckDecoder, *, fused: bool = False) -> None:
        super().__init__()
        self.decoder: OobleckDecoder = decoder
        self.snakes = Snakes(decoder, fused=fused)

    def forward(self, latents: Tensor) -> Tensor:
        """Audio [1, 2, frames * 1920] of latents [1, 64, frames]."""
        decoder = self.decoder
        hidden = decoder.conv1(latents)
        for block in decoder.block:
            hidden = block.conv_t1(self.snakes.in_place(hidden, block.snake1))
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                hidden = residual(hidden, unit, self.snakes)
        return decoder.conv2(self.snakes.in_place(hidden, decoder.snake1))  # type: ignore[no-any-return]


def frame_bytes(decoder: OobleckDecoder) -> int:
    """Device bytes that decoding takes for each latent frame of a tile, workspaces and fragmentation included.

    The last block is the widest in bytes: its channels times the `LATENT_HOP` samples of a frame.
    """
    weight = decoder.conv2.weight
    widest = weight.shape[1] * LATENT_HOP * weight.element_size()
    return int(widest * (LIVE_TENSORS + WORKSPACE_TENSORS) * FRAGMENTATION)


def choose_tile(free_bytes: int, frames: int, bytes_per_frame: int) -> int:
    """Return the largest tile for a song of `frames` that fits in `free_bytes`, or the smallest tile if none fits."""
    chosen = TILES[0]
    for tile in TILES[1:]:
        if chosen >= frames or min(tile, frames) * bytes_per_frame > free_bytes:
            break
        chosen = tile
    return chosen


def ladder_from(tile: int) -> tuple[int, ...]:
    """Return the tile and every smaller one, in the order in which they are tried."""
    return (tile, *(smaller for smaller in reversed(TILES) if smaller < tile))


def chunk_from(environ: Mapping[str, str]) -> int:
    """Return the tile that the environment sets, 0 if it is not set and free memory decides."""
    text = environ.get(CHUNK_VARIABLE, "").strip()
    if not text:
        return 0
    number = text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS
    if not number or int(text) < TILES[0]:
        raise UsageError(
            f"{CHUNK_VARIABLE} must be a whole number of latent frames from {TILES[0]} on, got {text[:40]!r}"
        )
    return int(text)


def decode_song(
    decoder: TileDecoder, latents: Tensor, samples: int, device: Device, tile: int, check: Check = unchecked
) -> np.ndarray:
    """Decode one song's host latents [frames, 64] to audio [2, samples] float32; both are copied tile by tile.

    The song may be shorter than its latents, and after the last of them it is silent. `check` is called before each
    tile.
    """
    audio = np.zeros((2, samples), dtype=np.float32)
    dtype = decoder.decoder.conv1.weight.dtype
    for first, last, keep_first, keep_last in tiles(latents.shape[0], tile, DECODE_OVERLAP_FRAMES):
        check()
        begin, end = keep_first * LATENT_HOP, min(samples, keep_last * LATENT_HOP)
        if begin >= samples:
            break
        piece = decoder(device.upload(latents[first:last], "latents").to(dtype).T[None])
        skip = (keep_first - first) * LATENT_HOP
        device.download(audio[:, begin:end], piece[0, :, skip : skip + end - begin].float())
        del piece
    return audio
