"""What a card's kind, its compute capability and the system decide about its kernels. Pure."""

import re
import sys
from typing import Final

import msgspec

from acestep.hardware.card import Card, CardKind
from acestep.knobs import Backend, Variant
from acestep.units import KIB, MIB

TRITON_CAPABILITY: Final = (7, 0)
"""vLLM, torch.compile and our own kernels need Triton, which starts at Volta."""

AMPERE: Final = (8, 0)
"""The first capability with bfloat16, PyTorch's flash kernel (which takes grouped queries) and flash-attn."""

HOPPER: Final = (9, 0)

MATRIX_WORKSPACE: Final = 2 * 4096 * KIB + 8 * 16 * KIB
"""Bytes that cuBLAS keeps after its first product: PyTorch's default ":4096:2:16:8" for cards before Hopper."""

HOPPER_MATRIX_WORKSPACE: Final = 32 * MIB
"""Bytes that cuBLAS keeps from Hopper on, also on consumer Blackwell (aten/src/ATen/cuda/CublasHandlePool.cpp)."""

TorchRelease = tuple[int, int]
"""The first two numbers of a version of PyTorch, such as (2, 13)."""

HOPPER_ALONE: Final[TorchRelease] = (2, 11)
"""The last release seen in which Blackwell has the smaller workspace; (2, 13) and (2, 14) have the larger one there."""

ROCM_MATRIX_WORKSPACE: Final = (32 + 76) * MIB
"""rocBLAS and hipBLASLt keep one workspace each (the same file)."""


class KindTraits(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a kind of card. `named` and `run` are the subject and the verb of a sentence about it.

    A kind with its `own_memory` frees some where weights leave it. `quantizes` and `compiles` say whether torchao and
    torch.compile are dependable there. `backends` run the language model, the fastest first. `itemsize` is in bytes,
    the largest where the processor decides; `matrix_workspace` too, None where the compute capability decides.
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
    """Return whether the card has no bfloat16, so that float32 is used: an NVIDIA card before Ampere.

    In float16 the models overflow there: it produced only NaN on Turing and on Pascal, float32 none (ACE-Step-1.5,
    issue 1274 and pull request 1312). `songs_in_float16` is the exception.
    """
    return card.kind is CardKind.CUDA and card.capability < AMPERE


def songs_in_float16(card: Card, variant: Variant) -> bool:
    """Return whether songs are made in float16 on a card without bfloat16.

    Turbo overflows in one projection only, and with that one in float32 made 8 of 8 songs on a V100 and on a GTX 1070
    (ACE-Step-1.5, pull request 1312). The others overflow in more places.
    """
    return computes_in_float32(card) and variant is Variant.TURBO


def songs_in_float32(card: Card, variant: Variant) -> bool:
    """Return whether an NVIDIA card makes songs in float32, where everything takes twice what the table says."""
    return computes_in_float32(card) and not songs_in_float16(card, variant)


def itemsize_of(card: Card, variant: Variant | None = None) -> int:
    """Bytes of the numbers in which the card makes songs of a variant; without one, plans them."""
    if variant is not None and songs_in_float16(card, variant):
        return 2
    return 4 if computes_in_float32(card) else KINDS[card.kind].itemsize


def dtype_name(card: Card, variant: Variant, *, cpu_bfloat16: bool | None) -> str | None:
    """Return the name of the type in which the card makes songs of a variant, None if it is not known.

    `cpu_bfloat16`: whether the processor multiplies bfloat16, None if that is not known. Songs of the tiny model are
    made in float32 on every processor.
    """
    if songs_in_float16(card, variant):
        return "float16"
    if card.kind is not CardKind.CPU:
        return {2: "bfloat16", 4: "float32"}[itemsize_of(card, variant)]
    return {True: "bfloat16", False: "float32", None: None}[cpu_bfloat16]


def groups_attention(card: Card, *, windows: bool = sys.platform == "win32") -> bool:
    """Return whether PyTorch's fused attention takes grouped queries there without expanding keys and values.

    On CUDA that is its flash kernel, which is not built for `windows` (CMakeLists.txt of PyTorch: not with MSVC).
    """
    fused = card.kind is CardKind.CUDA and card.capability >= AMPERE and not windows
    return card.kind is CardKind.CPU or fused


def torch_release(version: str) -> TorchRelease | None:
    """Return the release of a version such as ``"2.13.0+cu130"``; None for a text that is none."""
    found = re.match(r"([0-9]+)\.([0-9]+)", version)
    return (int(found[1]), int(found[2])) if found else None


def matrix_workspace(capability: tuple[int, int], torch: TorchRelease | None = None) -> int:
    """Return the bytes that the matrix library of an NVIDIA card of this compute capability keeps.

    `torch` is the release of PyTorch; None stands for one with the larger workspace.
    """
    large = capability[0] == HOPPER[0] if torch is not None and torch <= HOPPER_ALONE else capability >= HOPPER
    return HOPPER_MATRIX_WORKSPACE if large else MATRIX_WORKSPACE


def matrix_workspace_of(card: Card, torch: TorchRelease | None = None) -> int:
    """Bytes that the matrix library keeps on the card from its first product on; `torch` as for `matrix_workspace`."""
    fixed = KINDS[card.kind].matrix_workspace
    return matrix_workspace(card.capability, torch) if fixed is None else fixed
