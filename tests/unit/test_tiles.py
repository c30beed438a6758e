"""Tiles keep every frame once, with what its values depend on around it."""

from hypothesis import given
from hypothesis import strategies as st

from acestep.dit.vae_decode import tiles


@given(frames=st.integers(1, 3_000), overlap=st.integers(0, 12), more=st.integers(1, 1_600))
def test_tiles_keep_every_frame_once_with_its_surroundings(frames: int, overlap: int, more: int) -> None:
    tile, kept = 2 * overlap + more, 0
    for first, last, keep_first, keep_last in tiles(frames, tile, overlap):
        assert keep_first == kept
        assert 0 <= first <= keep_first < keep_last <= last <= frames
        assert last - first <= tile
        assert first == max(0, keep_first - overlap) or (first, last) == (0, frames)
        assert last == min(frames, keep_last + overlap)
        kept = keep_last
    assert kept == frames
