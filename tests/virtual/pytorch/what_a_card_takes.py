"""Run on a virtual card: which attention kernels PyTorch launches and what products keep, as one line of JSON.

PyTorch asks only its first card for some of this, so every capability needs a process of its own.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch.nn import functional


def launched(masked: bool, heads: int, dtype: torch.dtype) -> str:
    """The name of the attention kernel, "math" where matrix products do it."""
    log = Path(os.environ["VIRTUAL_CARD_LAUNCHES"])
    query = torch.empty(1, 8, 512, 64, device="cuda", dtype=dtype)
    key = torch.empty(1, heads, 512, 64, device="cuda", dtype=dtype)
    mask = torch.zeros(512, 512, device="cuda", dtype=dtype) if masked else None
    before = log.stat().st_size
    functional.scaled_dot_product_attention(query, key, key, mask, enable_gqa=heads != 8)
    names = log.read_text()[before:]
    return next((kind for kind in ("flash_fwd", "fmha") if kind in names), "math" if "cublas" in names else names)


def workspace() -> int:
    """Bytes that the first product keeps."""
    a = torch.empty(64, 64, device="cuda", dtype=torch.float32)
    before = torch.cuda.memory_allocated()
    result = torch.mm(a, a)
    return torch.cuda.memory_allocated() - before - result.numel() * result.element_size()


def main() -> None:
    torch.backends.cuda.enable_cudnn_sdp(False)
    kept = workspace()
    half = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    answers = {
        "workspace": kept,
        "plain": launched(masked=False, heads=8, dtype=half),
        "grouped": launched(masked=False, heads=2, dtype=half) if half is torch.bfloat16 else "",
        "masked": launched(masked=True, heads=8, dtype=half),
        "grouped and masked": launched(masked=True, heads=2, dtype=half) if half is torch.bfloat16 else "",
        "single": launched(masked=False, heads=8, dtype=torch.float32),
    }
    json.dump(answers, sys.stdout)


main()
