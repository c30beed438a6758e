"""The flash-attn package, where it is installed and can be loaded."""

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from torch import Tensor


class FlashAttention(Protocol):
    """`flash_attn.flash_attn_func`, as far as it is used here."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, window_size: tuple[int, int]) -> Tensor:
        """Attention of [batch, rows, heads, dim]; query i sees keys from ``i - left`` to ``i + right``, -1 for all."""
        ...


@cache
def flash_attention() -> FlashAttention | None:
    """The package's function; None where it is missing or was built for another PyTorch."""
    if find_spec("flash_attn") is None:
        return None
    try:
        from flash_attn import flash_attn_func
    except (ImportError, OSError, AttributeError) as error:
        warnings.warn(
            f"flash-attn is installed but cannot be loaded ({error}); PyTorch's own attention is used. Install the"
            " flash-attn that was built for this PyTorch, or remove it.",
            stacklevel=2,
        )
        return None
    found: FlashAttention = flash_attn_func
    return found
