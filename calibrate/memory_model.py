"""Fits what the VRAM guard predicts with, over simulated runs of one variant.

Denoising is linear in what `acestep.memory.guard` lists, but for the allocator: how blocks fall into segments moves the
smallest cap by one or two per cent. So the line is laid through the sweep with relative weights and then raised above
every point of it, and a little further for requests that were not in it.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.memory.guard import FEATURES, FEWEST_LYRICS, Demand, knobs_key
from acestep.request import MAX_LYRIC_TOKENS
from calibrate.workload import Workload

MARGIN: Final = 0.012
"""Room above the highest point of the sweep, as a share: the next segment of the allocator on a small card."""

FORMATS: Final = (None, Quantization.INT8)
"""Weight formats that are swept; for others the guard has no opinion."""

SWEPT: Final = {
    Offload.CPU_DIT: (Offload.NONE, Offload.CPU),
    Offload.STREAM_ENCODERS: (Offload.STREAM,),
}
"""The offload modes that are swept, whole weights and streamed ones, and those that differ from them by a constant."""

SWEEP: Final = (
    (1, 20, 2305),
    (1, 75, 400),
    (1, 130, 2305),
    (1, 200, 1200),
    (1, 420, 400),
    (1, 600, 2305),
    (2, 45, 2305),
    (2, 240, 400),
    (3, 160, 2305),
    (4, 25, 1200),
    (4, 100, 2305),
    (5, 330, 1200),
    (6, 60, 400),
    (8, 15, 2305),
    (8, 240, 2305),
)
"""(songs, seconds, tokens of the condition): on both sides of every chunk size, alone and together."""

CLOSER: Final = (
    (2, 120, 1200),
    (2, 414, 1400),
    (3, 60, 1200),
    (4, 200, 2305),
    (5, 250, 900),
    (6, 130, 2305),
    (7, 84, 2000),
    (8, 100, 400),
    (8, 185, 405),
)
"""More points for streamed weights: with so little on the card, how blocks fall into segments shows most."""

PLACED: Final = (3, 160, 2305)
"""The point of the sweep at which the other offload modes are compared."""


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated denoise stage: the smallest cap and what rested on the card before it, in bytes."""

    demand: Demand
    cap_bytes: int
    resting_bytes: int


Denoise = Callable[[Knobs, int, float, int], Swept]
"""Simulates one stage for knobs, songs, seconds and tokens."""


def fit(
    variant: Variant, denoise: Denoise, smallest_caps: Callable[[Knobs, Workload], dict[str, int]]
) -> dict[str, float]:
    """The coefficients of a variant for every offload mode, unquantised and INT8."""
    model: dict[str, float] = {}
    for quantization in FORMATS:
        for swept, others in SWEPT.items():
            knobs = Knobs(variant=variant, offload=swept, quantization=quantization)
            points = [denoise(knobs, *point) for point in (SWEEP if swept is Offload.CPU_DIT else SWEEP + CLOSER)]
            fixed, slopes = envelope([p.demand for p in points], [p.cap_bytes for p in points])
            compared = points[SWEEP.index(PLACED)]
            for offload in (swept, *others):
                knobs = msgspec.structs.replace(knobs, offload=offload)
                placed = compared if offload is swept else denoise(knobs, *PLACED)
                key = knobs_key(knobs)
                model[f"{key}.rest"] = placed.resting_bytes
                model[f"{key}.denoise"] = fixed + (placed.cap_bytes - compared.cap_bytes) * (1 + MARGIN)
                model |= {f"{key}.denoise.{name}": slope for name, slope in zip(FEATURES, slopes, strict=True)}
    for offload in Offload:
        exact, int8 = (Knobs(variant=variant, offload=offload, quantization=q) for q in FORMATS)
        little, most = (smallest_caps(exact, _short(lyrics)) for lyrics in (FEWEST_LYRICS, MAX_LYRIC_TOKENS))
        saved = model[f"{knobs_key(exact)}.rest"] - model[f"{knobs_key(int8)}.rest"]
        for knobs_of, less in ((exact, 0.0), (int8, saved)):
            key = knobs_key(knobs_of)
            model[f"{key}.encode"] = (little["encode"] - less) * (1 + MARGIN)
            model[f"{key}.encode.lyrics"] = (most["encode"] - little["encode"]) / (MAX_LYRIC_TOKENS - FEWEST_LYRICS)
            model[f"{key}.decode"] = (most["decode"] - less) * (1 + MARGIN)
    return {name: float(round(value, 3)) for name, value in model.items()}


def envelope(demands: Sequence[Demand], caps: Sequence[int]) -> tuple[float, tuple[float, ...]]:
    """A fixed part and a slope for each feature: a line `MARGIN` above every cap and otherwise as low as can be."""
    inputs = np.array([(1.0, *demand.features()) for demand in demands])
    needs = np.array(caps, dtype=np.float64)
    scale = np.abs(inputs).max(axis=0)
    # Each row over its cap, so that the error that is made small is the relative one.
    solved, *_ = np.linalg.lstsq(inputs / scale / needs[:, None], np.ones(len(needs)), rcond=None)
    line = inputs / scale @ solved
    raised = solved / scale * float((needs / line).max()) * (1 + MARGIN)
    return float(raised[0]), tuple(float(slope) for slope in raised[1:])


def _short(lyrics: int) -> Workload:
    return Workload(batch=1, duration_s=10, lyric_tokens=lyrics)
