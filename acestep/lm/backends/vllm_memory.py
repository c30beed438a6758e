"""The memory that vLLM takes on a device: weights, a pool of key and value blocks of a size that we set, one forward.

The numbers are `estimated`: counted from vLLM's own rules (v1/core/kv_cache_utils.py, v1/worker/gpu_model_runner.py),
not measured on a card.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from acestep.checkpoints.architecture import QwenArchitecture
from acestep.lm.job import Job
from acestep.units import MIB, ceil_div

BLOCK_TOKENS: Final = 32
"""Tokens in one block of keys and values: the block size of vLLM's attention on both CUDA and CPU."""

LEAST_BATCHED_TOKENS: Final = 1_024
"""The smallest limit on prompt tokens in one forward. vLLM's default of 8,192 and more needs proportionally larger
activations.
"""

WORKSPACE_BYTES: Final = 96 * MIB
"""Bytes that cuBLAS and the attention kernels keep: 32 MiB on Hopper for each handle, and scratch memory for split KV.
"""

SAMPLED_BYTES: Final = 4 + 4 + 8 + 4
"""Bytes for each logit in vLLM's sampler, warmed up with top-k and top-p: its float32 value, the sorted value, its
index before sorting, and the cumulative probability.
"""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A cache for `rows` sequences in one batch (a guidance pair counts as two), each of at most `longest` tokens.

    `blocks` includes the block that vLLM reserves for itself.
    """

    rows: int
    longest: int
    blocks: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.blocks < 1 + blocks_of(self.longest):
            raise ValueError(f"a pool holds its longest sequence at least, got {self}")

    @property
    def batched_tokens(self) -> int:
        """Return the most tokens of one forward: a chunk of prompts, or the last block of every prompt.

        The second lets all rows start writing at the same step.
        """
        return max(LEAST_BATCHED_TOKENS, self.rows * BLOCK_TOKENS)

    def with_room_for(self, other: "Pool") -> "Pool":
        """Return the smallest pool that serves both this one and `other`."""
        return Pool(
            rows=max(self.rows, other.rows),
            longest=max(self.longest, other.longest),
            blocks=max(self.blocks, other.blocks),
        )


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device; `activation_bytes` exist only during a forward."""

    weight_bytes: int
    cache_bytes: int
    activation_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Return the largest number of bytes in use at one time."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes


def blocks_of(tokens: int) -> int:
    """Return the number of blocks for `tokens` tokens of one sequence."""
    return ceil_div(tokens, BLOCK_TOKENS)


def pool_for(jobs: Sequence[Job]) -> Pool:
    """Return the smallest pool that holds every row of the jobs at its full length: vLLM never evicts a block."""
    if not jobs:
        raise ValueError("a pool is for at least one job, got none")
    lengths = [len(prompt) + job.max_tokens for job in jobs for prompt in job.prompts]
    return Pool(rows=len(lengths), longest=max(lengths), blocks=1 + sum(map(blocks_of, lengths)))


def pool_of(rows: int, longest: int) -> Pool:
    """Return the pool for `rows` sequences of up to `longest` tokens each."""
    return Pool(rows=rows, longest=longest, blocks=1 + rows * blocks_of(longest))


def block_bytes(architecture: QwenArchitecture, itemsize: int) -> int:
    """Return the bytes of one block: keys and values of every layer, `itemsize` bytes for each value."""
    a = architecture
    return 2 * a.num_hidden_layers * a.num_key_value_heads * a.head_dim * BLOCK_TOKENS * itemsize


def vllm_footprint(architecture: QwenArchitecture, pool: Pool, *, weight_bytes: int, itemsize: int) -> Footprint:
    """Return the bytes that vLLM takes to write with `pool` in eager mode.

    `itemsize` is that of weights and activations. The activations are those of the forward that vLLM profiles at its
    start, the largest one: a prefill of `batched_tokens`, then the logits of every row through its sampler, one after
    the other.
    """
    a = architecture
    heads = a.num_attention_heads + 2 * a.num_key_value_heads
    # The widest point of a layer: the residual and its normalised copy, together with either the queries, keys and
    # values and their rotated copies, or the gate and up projections and their product.
    attention = 2 * heads * a.head_dim
    feed_forward = 3 * a.intermediate_size
    reading = pool.batched_tokens * (2 * a.hidden_size + max(attention, feed_forward)) * itemsize
    choosing = pool.rows * a.vocab_size * (itemsize + SAMPLED_BYTES)
    return Footprint(
        weight_bytes=weight_bytes,
        cache_bytes=pool.blocks * block_bytes(a, itemsize),
        activation_bytes=WORKSPACE_BYTES + max(reading, choosing),
    )
