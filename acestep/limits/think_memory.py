"""The memory that a language model takes while it plans a song, from its shape. Pure.

Most of it is exact: weights, and the keys and values of two sequences. A test compares the sum with simulated runs.
"""

from typing import Final

from acestep.checkpoints.catalog import lm_checkpoint
from acestep.clip import FRAMES_A_SECOND
from acestep.knobs import WEIGHT_FORMATS, Backend, Knobs
from acestep.request import CODE_FRAMES
from acestep.thinking import LONGEST_PROMPT_TOKENS
from acestep.units import MIB, ceil_div

_GUIDED_PAIR: Final = 2
"""Sequences of one song: with the user's words and without."""

THINK_BESIDE: Final = 128 * MIB
"""Activations of 512 prompt tokens, their mask, the logits of two sequences, and gaps between segments."""

THINK_SHARE_BESIDE: Final = 0.01
"""For PyTorch, whose weights share one allocation, the scales of quantised weights, which are up to 0.2 %; the rest is
spare. For vLLM also what segments of 2 MiB are larger than hundreds of weights.
"""

THINK_VLLM_BESIDE: Final = 512 * MIB
"""What vLLM takes besides: the activations of 1,024 tokens, its sampler, workspaces (`acestep.lm.backends`)."""


def lm_weight_bytes(knobs: Knobs, itemsize: int) -> int:
    """Bytes of the weights of the knobs' language model in numbers of `itemsize` bytes; 0 without one."""
    if knobs.lm is None:
        return 0
    checkpoint = lm_checkpoint(knobs.lm)
    shape = checkpoint.shape
    if knobs.lm_quantization is None or shape is None:
        return checkpoint.params * itemsize
    # The embedding, which is the head too, is not quantized.
    embedding = shape.vocab_size * shape.hidden_size
    linear = (checkpoint.params - embedding) * WEIGHT_FORMATS[knobs.lm_quantization].bits // 8
    return embedding * itemsize + linear


def think_bytes(knobs: Knobs, duration_s: float, itemsize: int) -> int:
    """Bytes of planning one song of that length, with nothing else on the card; 0 without a language model."""
    if knobs.lm is None:
        return 0
    shape = lm_checkpoint(knobs.lm).shape
    if shape is None:
        return 0
    weights = lm_weight_bytes(knobs, itemsize)
    tokens = LONGEST_PROMPT_TOKENS + ceil_div(round(duration_s * FRAMES_A_SECOND), CODE_FRAMES) + 1
    a_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * itemsize
    beside = THINK_BESIDE * itemsize // 2 + (THINK_VLLM_BESIDE if knobs.backend is Backend.VLLM else 0)
    return int(weights * (1 + THINK_SHARE_BESIDE)) + _GUIDED_PAIR * tokens * a_token + beside
