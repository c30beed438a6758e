"""What a card's kind, its compute capability and the system decide about its kernels. Pure."""

import sys
from typing import Final

from acestep.hardware import Card, CardKind
from acestep.memory.workspace import MATRIX_WORKSPACE
from acestep.units import MIB

AMPERE: Final = (8, 0)
"""From here on there is bf16, PyTorch's flash kernel, which takes grouped queries, and flash-attn."""

HOPPER: Final = (9, 0)

HOPPER_MATRIX_WORKSPACE: Final = 32 * MIB
"""Bytes that cuBLAS keeps from Hopper on, on Blackwell for people too (aten/src/ATen/cuda/CublasHandlePool.cpp)."""

ROCM_MATRIX_WORKSPACE: Final = (32 + 76) * MIB
"""rocBLAS and hipBLASLt keep one each (the same file)."""


def groups_attention(card: Card, *, windows: bool = sys.platform == "win32") -> bool:
    """Whether the fused attention of PyTorch takes keys and values of fewer heads as they are there.

    On CUDA that is its flash kernel, which is built for no `windows` (CMakeLists.txt of PyTorch: not with MSVC).
    """
    fused = card.kind is CardKind.CUDA and card.capability >= AMPERE and not windows
    return card.kind is CardKind.CPU or fused


def matrix_workspace(capability: tuple[int, int]) -> int:
    """Bytes that the matrix library of an NVIDIA card of this compute capability keeps."""
    return HOPPER_MATRIX_WORKSPACE if capability >= HOPPER else MATRIX_WORKSPACE


def matrix_workspace_of(card: Card) -> int:
    """Bytes that the matrix library keeps on the card from its first product on."""
    return ROCM_MATRIX_WORKSPACE if card.kind is CardKind.ROCM else matrix_workspace(card.capability)
