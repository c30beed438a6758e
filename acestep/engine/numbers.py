"""Refuses latents that are infinite or no numbers (NaN), which make no sound."""

import torch
from torch import Tensor

from acestep.errors import NotANumberError


def require_numbers(latents: Tensor, dtype: torch.dtype) -> None:
    """Raise `NotANumberError` if any latent, on the host, is infinite or no number; they were made in `dtype`."""
    if bool(torch.isfinite(latents).all()):
        return
    precision = str(dtype).removeprefix("torch.")
    raise NotANumberError(
        f"The song came out as values that are not numbers (NaN) in {precision}, of which nothing can be heard. If this"
        " happens in float32, the weights may be damaged: fetch them again with acestep download, or choose another"
        " --seed."
    )
