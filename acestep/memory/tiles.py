"""Cutting a song into tiles that overlap; the VAE's decoder and encoder both work tile by tile."""

from collections.abc import Iterator


def tiles(frames: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cuts `frames` into (first, last, keep_first, keep_last): compute first..last, keep keep_first..keep_last.

    A tile is at most `tile` frames long, `overlap` of them at each inner end only heard; ``tile > 2 * overlap``.
    """
    if frames <= tile:
        yield 0, frames, 0, frames
        return
    stride = tile - 2 * overlap
    for start in range(0, frames, stride):
        end = min(frames, start + stride)
        yield max(0, start - overlap), min(frames, end + overlap), start, end
