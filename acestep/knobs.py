"""The knobs of a run: what a plan decides and a probe turns."""

from enum import StrEnum

import msgspec


class Variant(StrEnum):
    """The DiT variants, by the short names used on the command line and in the tier table."""

    TURBO = "turbo"
    BASE = "base"
    SFT = "sft"
    XL_TURBO = "xl-turbo"
    XL_BASE = "xl-base"
    XL_SFT = "xl-sft"

    @property
    def is_turbo(self) -> bool:
        """Whether guidance is distilled into the weights, so that one pass a step is enough."""
        return self in (Variant.TURBO, Variant.XL_TURBO)

    @property
    def is_xl(self) -> bool:
        """Whether this is the 4B transformer."""
        return self.value.startswith("xl-")


class Offload(StrEnum):
    """Which parts leave the device while they are not in use, from none to every layer."""

    NONE = "none"
    CPU = "cpu"
    CPU_DIT = "cpu+dit"
    STREAM = "stream"
    STREAM_ENCODERS = "stream+encoders"


class Quantization(StrEnum):
    """Weight formats of the transformer; no quantization is null in JSON and None here."""

    INT8 = "int8"
    FP8 = "fp8"
    W8A8 = "w8a8"


WEIGHT_ONLY = (Quantization.INT8, Quantization.FP8)
"""Formats whose weights are unpacked for use; W8A8 computes with them directly."""


class Backend(StrEnum):
    """What runs the language model."""

    PT = "pt"
    VLLM = "vllm"
    MLX = "mlx"


class Attention(StrEnum):
    """Which attention kernels may be used: the best one found, flash-attn only, or PyTorch's own."""

    AUTO = "auto"
    FLASH = "flash"
    SDPA = "sdpa"


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to run the pipeline; two runs with equal knobs load the same weights in the same places."""

    variant: Variant = Variant.TURBO
    offload: Offload = Offload.NONE
    quantization: Quantization | None = None
    lm: str | None = None
    lm_quantization: Quantization | None = None
    backend: Backend = Backend.PT
    attention: Attention = Attention.AUTO
    compile: bool = False
