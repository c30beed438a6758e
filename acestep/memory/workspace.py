"""What denoising takes from the card beside the weights of the transformer's blocks. Pure.

An allocator that is asked for many tensors of a few MiB takes a segment of 20 MiB for every few of them, and rounds
larger ones up; at the worst moment of a step 15 to 60 MiB of that are left over. In one segment, taken before the first
step, they lie side by side. The stage takes `Steps.room_bytes`, and so the VRAM guard knows what it will take.
"""

from typing import Final

import msgspec

from acestep.memory.segments import OWN_SEGMENT, segment_bytes, up_to_grain
from acestep.models.architecture import Architecture
from acestep.units import KIB

ROWS: Final = 2_048
"""Most rows that pass through a DiT block's projections at once (`acestep.models.blocks.CHUNK_ROWS`, a test)."""

FLOAT32: Final = 4
"""Bytes of a number."""

TIME_PROJECTIONS: Final = 6
"""Shifts, scales and gates that one linear layer makes of a timestep's embedding (the library's transformer)."""

TIME_FREQUENCIES: Final = 256
"""Sines and cosines of a timestep that its embedding starts from (the library's transformer)."""

MATRIX_WORKSPACE: Final = 2 * 4096 * KIB + 8 * 16 * KIB
"""Bytes that cuBLAS keeps from its first product on, below Hopper: PyTorch's default there is ":4096:2:16:8"."""

BLOCK_ROWS: Final = 192
"""Queries of a block of banded attention (`acestep.models.attention.BLOCK_ROWS`, a test)."""


def rows_at_once(songs: int, tokens: int) -> int:
    """Rows of the largest piece that `acestep.models.blocks.pieces` cuts `songs` of that many tokens into."""
    if tokens <= ROWS:
        return min(songs, ROWS // tokens) * tokens
    return -(-tokens // -(-tokens // ROWS))


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one pass: `songs` of `frames` latent frames that attend to `condition_tokens` of `condition_width`.

    `itemsize` is that of the dtype, in bytes. `grouped`: attention takes keys and values of fewer heads as they are.
    `unpacks`: weights are smaller than the dtype, and unpacked when they are used. `weak_cover`: each step takes a
    second pass for another condition; `guided`: for none. `contexts` stay on the card, one or one for each song.
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
    contexts: int = 1

    @property
    def room_bytes(self) -> int:
        """What the steps ask for at their worst moment with the gaps between: a segment of its own."""
        a, rows = self.architecture, rows_at_once(self.songs, self._tokens)
        hidden = a.hidden_size * self.itemsize
        rotary = 2 * self._tokens * a.head_dim * self.itemsize
        worst = max(self._attending, self._attending_near, self._making(rows), self._feeding(rows))
        blocks = self._all_rows * hidden + rotary + worst
        # The timestep's embedding comes before the rows do.
        timestep = TIME_PROJECTIONS * a.hidden_size * hidden if self.unpacks else 0
        embedded = (2 if self.weak_cover else 1) * self.condition_tokens * hidden
        # Velocities of other passes, and guidance's memory of them.
        velocity = self.songs * self.frames * a.audio_acoustic_hidden_dim * self.itemsize
        held = (2 * self.guided + self.weak_cover) * velocity
        # A piece of queries, keys and values repeated for it, a projection that was unpacked: held by a test.
        gaps = rows * (self._query_bytes + self._repeated_bytes)
        gaps += a.hidden_size * self._query_bytes if self.unpacks else 0
        return max(OWN_SEGMENT, up_to_grain(embedded + held + max(blocks, timestep) + gaps))

    @property
    def beside_bytes(self) -> int:
        """Segments of what stays through the steps beside that, in the order in which it comes.

        The matrix library's workspace, conditions, contexts, latents, and the transformer's weights outside its blocks.
        How these happen to share segments of 20 MiB decides 20 MiB.
        """
        a = self.architecture
        channels, width = a.audio_acoustic_hidden_dim, a.hidden_size
        condition = self.condition_tokens * self.condition_width * self.itemsize
        weight = 1 if self.unpacks else self.itemsize
        timestep = (
            TIME_FREQUENCIES * width * weight,
            width * width * weight,
            TIME_PROJECTIONS * width * width * weight,
        )
        return segment_bytes(
            (
                MATRIX_WORKSPACE,
                *(condition,) * (2 if self.weak_cover else 1),
                self.contexts * self.frames * 2 * channels * self.itemsize,
                self.songs * self.frames * channels * FLOAT32,
                width * a.in_channels * a.patch_size * self.itemsize,
                *timestep,
                *timestep,
                width * self.condition_width * weight,
            )
        )

    @property
    def _tokens(self) -> int:
        return -(-self.frames // self.architecture.patch_size)

    @property
    def _all_rows(self) -> int:
        return self.songs * self._tokens

    @property
    def _query_bytes(self) -> int:
        """A row's queries."""
        return self.architecture.num_attention_heads * self.architecture.head_dim * self.itemsize

    @property
    def _key_bytes(self) -> int:
        """A row's keys, or its values."""
        return self.architecture.num_key_value_heads * self.architecture.head_dim * self.itemsize

    @property
    def _repeated_bytes(self) -> int:
        """A row's keys and values once more for all heads, where full attention wants them so."""
        return 0 if self.grouped or self._key_bytes == self._query_bytes else 2 * self._query_bytes

    @property
    def _attending(self) -> int:
        """Full attention over the song: queries, keys, values, the result, and a sum for each row and head."""
        sums = FLOAT32 * self.architecture.num_attention_heads
        return self._all_rows * (2 * self._query_bytes + 2 * self._key_bytes + self._repeated_bytes + sums)

    @property
    def _attending_near(self) -> int:
        """Attention within the window, whose result takes the queries' place: a block, its keys and values repeated."""
        window, repeats = self.architecture.sliding_window, self._key_bytes != self._query_bytes
        block = min(self._tokens, BLOCK_ROWS) + (2 * min(self._tokens, BLOCK_ROWS + 2 * window) if repeats else 0)
        return self._all_rows * (self._query_bytes + 2 * self._key_bytes) + self.songs * block * self._query_bytes

    def _making(self, rows: int) -> int:
        """A piece on its way to queries, normalised, projected and turned in float32, beside those made so far."""
        turning = 3 * self._query_bytes + 2 * self._query_bytes // self.itemsize * FLOAT32
        rotary = 4 * self.architecture.head_dim * self.itemsize
        whole = self._all_rows * (self._query_bytes + 2 * self._key_bytes) if self._all_rows > ROWS else 0
        return rows * (turning + rotary) + whole

    def _feeding(self, rows: int) -> int:
        """A piece that attends to the condition, or then goes through the MLP: its norm, gate and values."""
        a = self.architecture
        hidden, inner = a.hidden_size * self.itemsize, a.intermediate_size * self.itemsize
        unpacked = a.hidden_size * inner if self.unpacks else 0
        crossing = self.condition_tokens * -(-rows // self._tokens) * self._repeated_bytes + rows * (
            hidden + 3 * self._query_bytes
        )
        mlp = rows * (self._query_bytes + hidden + 2 * inner) + unpacked
        return self.condition_tokens * 2 * self._key_bytes + max(crossing, mlp)
