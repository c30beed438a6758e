"""The memory of denoising besides the weights of the transformer's blocks. Pure.

For many tensors of a few MiB, an allocator takes segments of 20 MiB, and it rounds larger segments up; at the peak of a
step 15 to 60 MiB of that are unused. If one segment is taken before the first step, the tensors are contiguous in it.
The stage takes `Steps.room_bytes`, and so the VRAM guard can predict it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

import msgspec

from acestep.checkpoints.architecture import Architecture
from acestep.limits.capabilities import MATRIX_WORKSPACE
from acestep.units import MIB, ceil_div

SMALL_LIMIT: Final = 1 * MIB
"""`kSmallSize`: tensors up to this size come from small segments; a larger block is not split if the rest would be
smaller.
"""

LARGE_SEGMENT: Final = 20 * MIB
"""`kLargeBuffer`: the segment size for a tensor below `OWN_SEGMENT`."""

OWN_SEGMENT: Final = 10 * MIB
"""`kMinLargeAlloc`: from this size on a tensor gets a segment of its own size, rounded up to `SEGMENT_GRAIN`."""

SEGMENT_GRAIN: Final = 2 * MIB
"""`kRoundLarge`: every segment is a multiple of it (`c10/cuda/CUDACachingAllocator.cpp`, its default settings)."""


def up_to_grain(n_bytes: int) -> int:
    """The multiple of `SEGMENT_GRAIN` that holds `n_bytes`."""
    return ceil_div(n_bytes, SEGMENT_GRAIN) * SEGMENT_GRAIN


def segment_bytes(sizes: Iterable[int]) -> int:
    """Bytes of the segments for tensors of `sizes` bytes, none of them freed.

    Tensors of small segments are not counted.
    """
    taken, gaps = 0, list[int]()
    for size in sizes:
        if size <= SMALL_LIMIT:
            continue
        fitting = bisect_left(gaps, size)
        if fitting < len(gaps):
            block = gaps.pop(fitting)
        else:
            block = LARGE_SEGMENT if size < OWN_SEGMENT else up_to_grain(size)
            taken += block
        if block - size > SMALL_LIMIT:
            insort(gaps, block - size)
    return taken


def small_segment_bytes(sizes: Iterable[int]) -> int:
    """Bytes of the segments of 2 MiB for tensors of `sizes` bytes, none of them freed; larger ones are not counted."""
    taken, gaps = 0, list[int]()
    for size in sizes:
        if size > SMALL_LIMIT:
            continue
        fitting = bisect_left(gaps, size)
        block = gaps.pop(fitting) if fitting < len(gaps) else SEGMENT_GRAIN
        taken += SEGMENT_GRAIN if block == SEGMENT_GRAIN else 0
        insort(gaps, block - size)
    return taken


CHUNK_ROWS: Final = 2_048
"""Rows (over all songs of a pass) in one call of projections and MLPs; their memory stays below the attention peak at
600 s.
"""

FLOAT32: Final = 4
"""Bytes of a number."""

TIME_PROJECTIONS: Final = 6
"""Shifts, scales and gates that one linear layer computes from a timestep's embedding (the library's transformer)."""

TIME_FREQUENCIES: Final = 256
"""Sines and cosines of a timestep, the input of its embedding (the library's transformer)."""

BLOCK_ROWS: Final = 192
"""Query rows of one block of banded attention: small enough to compute little outside the band, large enough for
kernels.

Measured on a CPU (7,500 rows, window 128): 64 81 ms, 128 77, 192 65, 256 80, 384 98, 512 117.
"""


def rows_at_once(songs: int, tokens: int) -> int:
    """Rows of the largest piece that `acestep.dit.blocks.row_pieces` makes of `songs` songs of that many tokens."""
    if tokens <= CHUNK_ROWS:
        return min(songs, CHUNK_ROWS // tokens) * tokens
    return ceil_div(tokens, ceil_div(tokens, CHUNK_ROWS))


BESIDE_ROOM: Final = 4 * SEGMENT_GRAIN
"""Bytes for small tensors of the steps besides velocities, which are not in the segment that the steps take."""

GUIDED_VELOCITIES: Final = 5
"""Velocity tensors that guidance holds at a time, including its temporaries; small ones come from small segments."""


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one pass: `songs` of `frames` latent frames that attend to `condition_tokens` of `condition_width`.

    `itemsize` is that of the dtype, in bytes. `grouped`: attention takes grouped queries without expanding keys and
    values. `unpacks`: weights are smaller than the dtype and are unpacked for use. `weak_cover`: each step takes a
    second pass for another condition; `guided`: one without condition. `together`: the rows of all passes are alive at
    the same time. `contexts` stay on the card, one or one for each song, and so do the `matrix_workspace` bytes of the
    matrix library, and with `recorded` the latents of the source audio. `adapter_values` are those that adapters beside
    the weights take for one row. A step's wavelet correction takes no memory.
    """

    architecture: Architecture
    songs: int
    frames: int
    condition_tokens: int
    condition_width: int
    itemsize: int
    grouped: bool
    unpacks: bool
    weak_cover: bool = False
    guided: bool = False
    together: bool = False
    recorded: bool = False
    contexts: int = 1
    matrix_workspace: int = MATRIX_WORKSPACE
    adapter_values: int = 0

    @property
    def room_bytes(self) -> int:
        """Peak bytes of the steps including gaps, for one segment."""
        a, size, tokens = self.architecture, self.itemsize, self._tokens
        all_rows, rows = self.songs * tokens, rows_at_once(self.songs, tokens)
        hidden, inner = a.hidden_size * size, a.intermediate_size * size
        query, key = a.num_attention_heads * a.head_dim * size, a.num_key_value_heads * a.head_dim * size
        # Keys and values expanded to all heads: where full attention needs that, and always within a window.
        fewer = key != query
        repeated = 2 * query if fewer and not self.grouped else 0

        # Full attention over the song: queries, keys, values, the result, and a sum for each row and head.
        attending = all_rows * (2 * query + 2 * key + repeated + FLOAT32 * a.num_attention_heads)
        # Attention within the window, computed block by block; the result is stored in the queries.
        block = min(tokens, BLOCK_ROWS) + (2 * min(tokens, BLOCK_ROWS + 2 * a.sliding_window) if fewer else 0)
        attending_near = all_rows * (query + 2 * key) + self.songs * block * query
        # A piece on its way to queries: normalised, projected and rotated in float32, next to those computed so far.
        making = rows * (3 * query + 2 * query // size * FLOAT32 + 4 * a.head_dim * size)
        making += all_rows * (query + 2 * key) if all_rows > CHUNK_ROWS else 0
        # A piece in cross-attention, and then in the MLP: its norm, gate and values.
        unpacked = a.hidden_size * inner if self.unpacks else 0
        crossing = self.condition_tokens * ceil_div(rows, tokens) * repeated + rows * (hidden + 3 * query)
        feeding = max(crossing, rows * (query + hidden + 2 * inner) + unpacked) + self.condition_tokens * 2 * key
        rotary = 2 * tokens * a.head_dim * size
        alive = 1 + self.together * (self.guided + self.weak_cover)
        blocks = alive * all_rows * hidden + rotary + max(attending, attending_near, making, feeding)

        # The timestep's embedding is computed before the rows.
        timestep = TIME_PROJECTIONS * a.hidden_size * hidden if self.unpacks else 0
        embedded = (2 if self.weak_cover else 1) * self.condition_tokens * hidden
        # Velocities of other passes, and guidance's momentum.
        held = (2 * self.guided + self.weak_cover) * self._velocity_bytes
        # A piece of queries, its repeated keys and values, and an unpacked projection; a test checks this term.
        gaps = rows * (query + repeated) + (a.hidden_size * query if self.unpacks else 0)
        gaps += max(rows, self.condition_tokens) * self.adapter_values * size
        return max(OWN_SEGMENT, up_to_grain(embedded + held + max(blocks, timestep) + gaps))

    @property
    def whole_bytes(self) -> int:
        """Bytes that have to be free for the steps, small segments included."""
        velocities = GUIDED_VELOCITIES * self.guided + 2 * self.weak_cover
        return self.room_bytes + small_segment_bytes((self._velocity_bytes,) * velocities) + BESIDE_ROOM

    @property
    def beside_bytes(self) -> int:
        """Bytes of the segments that live through the steps, in the order of allocation.

        These are the matrix library's workspace, conditions, contexts, latents, and the transformer's weights outside
        its blocks. Which of them share a segment of 20 MiB can change the sum by 20 MiB. Small velocities are included.
        """
        a = self.architecture
        channels, width = a.audio_acoustic_hidden_dim, a.hidden_size
        condition = self.condition_tokens * self.condition_width * self.itemsize
        weight = 1 if self.unpacks else self.itemsize
        timestep = tuple(n * width * weight for n in (TIME_FREQUENCIES, width, TIME_PROJECTIONS * width))
        large = segment_bytes(
            (
                self.matrix_workspace,
                *(condition,) * (2 if self.weak_cover else 1),
                self.contexts * self.frames * 2 * channels * self.itemsize,
                self.recorded * self.frames * channels * self.itemsize,
                self.songs * self.frames * channels * FLOAT32,
                width * a.in_channels * a.patch_size * self.itemsize,
                *timestep,
                *timestep,
                width * self.condition_width * weight,
            )
        )
        small = GUIDED_VELOCITIES * self._velocity_bytes if self.guided and self._velocity_bytes <= SMALL_LIMIT else 0
        return large + up_to_grain(small)

    @property
    def _tokens(self) -> int:
        return ceil_div(self.frames, self.architecture.patch_size)

    @property
    def _velocity_bytes(self) -> int:
        return self.songs * self.frames * self.architecture.audio_acoustic_hidden_dim * self.itemsize
