"""Snake as a Triton kernel. Importing this module imports Triton, which not every PyTorch brings.

In float32 the operations and their order are those of `acestep.dit.snake`, and a product and a sum are not joined, so
the results are the same except where Triton's sine differs from PyTorch's in its last bit.
"""

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

VALUES_A_PROGRAM: Final = 1024
"""Values of one program."""


# Triton compiles annotations too, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def _snake(  # type: ignore[no-untyped-def]
    result,
    hidden,
    alpha,
    inverse_beta,
    count,
    channels: tl.constexpr,
    channels_last: tl.constexpr,
    block: tl.constexpr,
):
    """Compute `block` values: of one row of `count` samples, or of `count` values in which channels alternate."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    if channels_last:
        channel = at % channels
    else:
        row = tl.program_id(1).to(tl.int64)
        channel = row % channels
        at += row * count
    x = tl.load(hidden + at, mask=inside).to(tl.float32)
    sine = tl.sin(tl.load(alpha + channel) * x)
    tl.store(result + at, x + sine * sine * tl.load(inverse_beta + channel), mask=inside)


def launch(result: Tensor, hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> bool:
    """Compute `result` from `hidden` [batch, channels, samples], which may be the same tensor.

    Both must have the same layout: rows of samples, or the channels last, as cuDNN may leave them. For another one
    nothing is computed, and False is returned. The others are [1, channels, 1] in float32.
    """
    batch, channels, samples = hidden.shape
    last = not hidden.is_contiguous()
    if result.stride() != hidden.stride() or (last and not hidden.transpose(1, 2).is_contiguous()):
        return False
    count = hidden.numel() if last else samples
    grid = (triton.cdiv(count, VALUES_A_PROGRAM), 1 if last else batch * channels)
    _snake[grid](
        result,
        hidden,
        alpha,
        inverse_beta,
        count,
        channels,
        channels_last=last,
        block=VALUES_A_PROGRAM,
        enable_fp_fusion=False,
    )
    return True
