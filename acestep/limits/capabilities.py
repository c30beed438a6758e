"""What a card's kind, its compute capability and the system decide about its kernels. Pure."""

import sys
from typing import Final

import msgspec

from acestep.hardware.card import Card, CardKind
from acestep.knobs import Backend
from acestep.units import KIB, MIB

AMPERE: Final = (8, 0)
"""The first capability with bfloat16, PyTorch's flash kernel (which takes grouped queries) and flash-attn."""

HOPPER: Final = (9, 0)

MATRIX_WORKSPACE: Final = 2 * 4096 * KIB + 8 * 16 * KIB
"""Bytes that cuBLAS keeps after its first product: PyTorch's default ":4096:2:16:8" for cards before Hopper."""

HOPPER_MATRIX_WORKSPACE: Final = 32 * MIB
"""Bytes that cuBLAS keeps from Hopper on, also on consumer Blackwell (aten/src/ATen/cuda/CublasHandlePool.cpp)."""

ROCM_MATRIX_WORKSPACE: Final = (32 + 76) * MIB
"""rocBLAS and hipBLASLt keep one workspace each (the same file)."""


class KindTraits(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a kind of card. `named` and `run` are the subject and the verb of a sentence about it.

    A kind with its `own_memory` frees some where weights leave it. `quantizes` and `compiles` say whether torchao and
    torch.compile are dependable there. `backends` run the language model, the fastest first. `itemsize` is in bytes;
    `matrix_workspace` too, None where the compute capability decides.
    """

    named: str
    run: str = "run"
    own_memory: bool = True
    quantizes: bool = True
    compiles: bool = True
    backends: tuple[Backend, ...] = (Backend.PT,)
    itemsize: int = 2
    matrix_workspace: int | None = None


KINDS = {
    CardKind.CUDA: KindTraits(named="this NVIDIA card", backends=(Backend.VLLM, Backend.PT)),
    CardKind.ROCM: KindTraits(named="AMD cards", matrix_workspace=ROCM_MATRIX_WORKSPACE),
    CardKind.XPU: KindTraits(named="Intel cards"),
    CardKind.MPS: KindTraits(
        named="Apple GPUs",
        own_memory=False,
        quantizes=False,
        compiles=False,
        backends=(Backend.MLX, Backend.PT),
        itemsize=4,
    ),
    CardKind.CPU: KindTraits(named="the CPU", run="runs", own_memory=False, quantizes=False, itemsize=4),
}
"""Every kind of card."""


def computes_in_float32(card: Card) -> bool:
    """Return whether the card computes in float32: an NVIDIA card before Ampere, which has no bfloat16.

    In float16 the transformer overflows there: float16 produced only NaN on Turing and on Pascal, float32 none
    (ACE-Step-1.5, issue 1274 and pull request 1312).
    """
    return card.kind is CardKind.CUDA and card.capability < AMPERE


def itemsize_of(card: Card) -> int:
    """Bytes of the numbers in which the card computes."""
    return 4 if computes_in_float32(card) else KINDS[card.kind].itemsize


def groups_attention(card: Card, *, windows: bool = sys.platform == "win32") -> bool:
    """Return whether PyTorch's fused attention takes grouped queries there without expanding keys and values.

    On CUDA that is its flash kernel, which is not built for `windows` (CMakeLists.txt of PyTorch: not with MSVC).
    """
    fused = card.kind is CardKind.CUDA and card.capability >= AMPERE and not windows
    return card.kind is CardKind.CPU or fused


def matrix_workspace(capability: tuple[int, int]) -> int:
    """Return the bytes that the matrix library of an NVIDIA card of this compute capability keeps."""
    return HOPPER_MATRIX_WORKSPACE if capability >= HOPPER else MATRIX_WORKSPACE


def matrix_workspace_of(card: Card) -> int:
    """Bytes that the matrix library keeps on the card from its first product on."""
    fixed = KINDS[card.kind].matrix_workspace
    return matrix_workspace(card.capability) if fixed is None else fixed
