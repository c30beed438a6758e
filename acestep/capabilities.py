"""What a card's kind and compute capability decide about its kernels. Pure."""

from typing import Final

from acestep.hardware import Card, CardKind
from acestep.memory.workspace import ROCM_MATRIX_WORKSPACE, matrix_workspace

AMPERE: Final = (8, 0)
"""From here on there is bf16, PyTorch's flash kernel, which takes grouped queries, and flash-attn."""


def groups_attention(card: Card) -> bool:
    """Whether the fused attention of PyTorch takes keys and values of fewer heads as they are there."""
    return card.kind is CardKind.CPU or (card.kind is CardKind.CUDA and card.capability >= AMPERE)


def matrix_workspace_of(card: Card) -> int:
    """Bytes that the matrix library keeps on the card from its first product on."""
    return ROCM_MATRIX_WORKSPACE if card.kind is CardKind.ROCM else matrix_workspace(card.capability)
