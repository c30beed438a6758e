"""How many tokens of a prompt are processed in one forward: more where memory is to spare. Pure.

With more tokens at a time the weights are read less often and fewer operations are launched; activations and the mask
take more memory. Promises, and so probes, count on the fewest tokens. Larger parts round differently, so on a card the
same seed gives the same plan only where the free memory allows the same parts.
"""

from collections.abc import Callable
from typing import Any, Final

PREFILL_TOKENS: Final = (512, 1_024, 2_048, 4_096)
"""Prompt tokens in one forward: the fewest keep a card busy, and are so few that only the cache grows with the prompt.
"""

_SPARE: Final = 2
"""So many times the memory of a forward must be free for it: what is free can lie in pieces."""

_FLOAT32: Final = 4


def prefill_tokens(free_bytes: int, needed: Callable[[int], int]) -> int:
    """Return the most tokens of `PREFILL_TOKENS` whose forward, which takes `needed(tokens)` bytes, has room to spare.

    Without room to spare, the fewest.
    """
    roomy = [tokens for tokens in PREFILL_TOKENS[1:] if _SPARE * needed(tokens) <= free_bytes]
    return max(roomy, default=PREFILL_TOKENS[0])


def forward_bytes(config: Any, tokens: int, so_far: int, itemsize: int) -> int:
    """Return what a forward of `tokens` takes besides weights and cache, as the last part of `so_far` prompt tokens.

    It is an upper bound where attention is fused, for numbers of `itemsize` bytes; `config` is a `Qwen3Config`.
    """
    width, inner = int(config.hidden_size), int(config.intermediate_size)
    query, key = (int(heads * config.head_dim) for heads in (config.num_attention_heads, config.num_key_value_heads))
    groups = query // key
    # Hidden states and their norm, which is computed in float32; the mask, and which of it is set.
    lasting = width * (2 * itemsize + 3 * _FLOAT32) + so_far * (itemsize + 1)
    # Queries are normed and rotated in float32.
    heads = query * 3 * _FLOAT32 + (query + 2 * key) * itemsize
    # Queries in two orders and the result in two orders; the mask for each group, which a kernel copies to align it.
    attention = (4 * query + 2 * key + 2 * groups * so_far) * itemsize
    return tokens * (lasting + max(heads, attention, 3 * inner * itemsize))
