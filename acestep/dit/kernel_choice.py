"""Which attention kernel each kind of layer uses on a device, and why; decided without importing anything."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from acestep.knobs import Attention


class LayerKind(StrEnum):
    """The attention layers of the model, by what they attend to."""

    SLIDING = "sliding"
    FULL = "full"
    CROSS = "cross"


class Kernel(StrEnum):
    """Attention kernels; none of them stores the scores of a whole song."""

    FLASH_ATTN = "flash-attn"
    FLASH = "PyTorch's flash kernel"
    EFFICIENT = "PyTorch's memory-efficient kernel"
    CPU = "PyTorch's CPU kernel"
    BLOCKS = "PyTorch's default, a block of queries at a time"


class KernelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel and the reason for it, as the end of a sentence."""

    kernel: Kernel
    why: str


def choose_kernels(
    backend: str, wish: Attention, *, grouped: bool, flash_attn: bool
) -> Mapping[LayerKind, KernelChoice]:
    """Return the kernel for every kind of layer.

    `backend` is a torch device type (`meta` stands for a CUDA card without flash-attn). `grouped` says whether its
    fused kernel takes grouped queries (`acestep.limits.capabilities.groups_attention`), `flash_attn` whether the
    package is installed.
    """
    if backend == "cuda" and grouped and flash_attn and wish is not Attention.SDPA:
        return {
            LayerKind.SLIDING: KernelChoice(kernel=Kernel.FLASH_ATTN, why="it has sliding windows of its own"),
            LayerKind.FULL: KernelChoice(kernel=Kernel.FLASH_ATTN, why="it takes grouped queries as they are"),
            LayerKind.CROSS: KernelChoice(kernel=Kernel.FLASH_ATTN, why="it takes grouped queries as they are"),
        }
    sliding, full = _of_pytorch(backend, grouped=grouped)
    return {LayerKind.SLIDING: sliding, LayerKind.FULL: full, LayerKind.CROSS: full}


def _of_pytorch(backend: str, *, grouped: bool) -> tuple[KernelChoice, KernelChoice]:
    """PyTorch's own kernels for (sliding, full) layers."""
    if backend == "cpu":
        return (
            KernelChoice(kernel=Kernel.CPU, why="over blocks of the window, whose masks it takes"),
            KernelChoice(kernel=Kernel.CPU, why="it takes grouped queries as they are"),
        )
    if backend in ("cuda", "meta"):
        sliding = KernelChoice(
            kernel=Kernel.EFFICIENT, why="over blocks of the window, because PyTorch's flash kernel takes no masks"
        )
        if grouped:
            return sliding, KernelChoice(kernel=Kernel.FLASH, why="it takes grouped queries as they are")
        return sliding, KernelChoice(
            kernel=Kernel.EFFICIENT,
            why="with keys and values expanded to all heads, because flash needs compute capability 8.0 and Linux",
        )
    why = f"so that scores stay small whether or not {backend} has a fused kernel"
    return KernelChoice(kernel=Kernel.BLOCKS, why=why), KernelChoice(kernel=Kernel.BLOCKS, why=why)
