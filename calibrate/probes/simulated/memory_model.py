"""Fits the VRAM guard's memory model to simulated runs of one variant.

`acestep.limits.workspace` computes most of what denoising takes besides weights, because the pipeline reserves it. The
rest is the same for every request except a few MiB of gaps, so the largest value of a sweep is taken.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from acestep.clip import FRAMES_A_SECOND
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.limits.guard import FEWEST_LYRICS, Demand, growth, knobs_key
from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.request import MAX_LYRIC_TOKENS, Task
from acestep.stage import Stage
from acestep.units import MIB
from calibrate.workload import Workload

SPARE_BYTES: Final = 2 * SEGMENT_GRAIN
SPARE_SHARE: Final = 0.01
"""Margin above the largest value of the sweep, the larger of both: gaps among many weights vary more."""

AROUND_MARGIN: Final = 0.029
"""Margin for encoding and decoding above the measured values, as a fraction."""

FORMATS: Final = (None, Quantization.INT8)
"""Weight formats that are swept; the guard has no prediction for others."""


def _asked(songs: int, seconds: int, tokens: int, *, weak: bool = False, contexts: int = 1) -> Demand:
    return Demand(
        songs=songs,
        frames=FRAMES_A_SECOND * seconds,
        lyric_tokens=tokens - 1,
        text_tokens=0,
        with_audio=weak or contexts > 1,
        weak_cover=weak,
        contexts=contexts,
    )


def _scattered(number: int) -> Demand:
    """Member of a sequence that covers songs, seconds and tokens evenly: multiples of powers of 0.8192, modulo 1."""
    songs, seconds, tokens = (number * 0.8191725134**power % 1 for power in (1, 2, 3))
    songs = 1 + int(8 * songs)
    return _asked(songs, 10 + round(seconds * (min(600, 2400 // songs) - 10)), 400 + round(tokens * 1905))


SWEEP: Final = (
    _asked(1, 12, 2305),
    _asked(1, 40, 400),
    _asked(1, 80, 2305),
    _asked(1, 160, 1000),
    _asked(1, 330, 500),
    _asked(1, 600, 2305),
    _asked(2, 20, 1300),
    _asked(2, 66, 2000),
    _asked(2, 200, 2305),
    _asked(2, 520, 1300),
    _asked(3, 105, 500),
    _asked(3, 160, 2305),
    _asked(4, 19, 400),
    _asked(4, 135, 1600),
    _asked(4, 320, 2000),
    _asked(5, 60, 2305),
    _asked(5, 330, 600),
    _asked(6, 225, 1300),
    _asked(7, 15, 1000),
    _asked(7, 84, 2000),
    _asked(7, 325, 2305),
    _asked(8, 26, 2305),
    _asked(8, 180, 405),
    _asked(8, 300, 2305),
    _asked(2, 60, 2305, weak=True),
    _asked(6, 150, 600, weak=True),
    _asked(6, 150, 1000, contexts=8),
    *map(_scattered, range(1, 15)),
)
"""Songs, seconds and tokens on both sides of every chunk size; a weak cover, and songs with their own contexts."""


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated denoise stage: for each offload mode the smallest cap, and the resident bytes before it."""

    demand: Demand
    caps: Mapping[Offload, int]
    resting: Mapping[Offload, int]


Denoise = Callable[[Quantization | None, Demand], Swept]
"""Simulates one stage under every offload mode."""

SmallestCaps = Callable[[Knobs, Workload], dict[str, int]]


def fit(variant: Variant, denoise: Denoise, smallest_caps: SmallestCaps) -> dict[str, float]:
    """Return the coefficients of a variant for every offload mode, unquantised and INT8."""
    model: dict[str, float] = {}
    for quantization in FORMATS:
        points = [denoise(quantization, demand) for demand in SWEEP]
        for offload in Offload:
            knobs = Knobs(variant=variant, offload=offload, quantization=quantization)
            key = knobs_key(knobs)
            fixed = max(point.caps[offload] - growth(knobs, point.demand) for point in points)
            model[f"{key}.rest"] = points[0].resting[offload]
            model[f"{key}.denoise.fixed"] = fixed + max(SPARE_BYTES, SPARE_SHARE * fixed)
    around = _around(variant, smallest_caps)
    for offload in Offload:
        exact, int8 = (knobs_key(Knobs(variant=variant, offload=offload, quantization=q)) for q in FORMATS)
        saved = model[f"{exact}.rest"] - model[f"{int8}.rest"]
        for key, less in ((exact, 0.0), (int8, saved)):
            for name, value in around[offload].items():
                fixed_part = name in _FIXED
                model[f"{key}.{name}"] = (value - less) * (1 + AROUND_MARGIN) if fixed_part else value
    return {name: float(round(value, 3)) for name, value in model.items()}


_FIXED: Final = (Stage.ENCODE_AUDIO, Stage.ENCODE, Stage.DECODE)

_SECONDS: Final = (10, 240)
"""Two lengths of a cover's source; the difference between them gives the growth of its encoding."""


def _around(variant: Variant, smallest_caps: SmallestCaps) -> dict[Offload, dict[str, float]]:
    """Return the needs of the stages around denoising by offload mode, unquantised: fixed parts and growth."""
    found: dict[Offload, dict[str, float]] = {}
    for offload in (Offload.CPU_DIT, Offload.STREAM_ENCODERS, Offload.CPU, Offload.NONE):
        knobs = Knobs(variant=variant, offload=offload)
        little = smallest_caps(knobs, _cover(_SECONDS[0], FEWEST_LYRICS))
        growth = found.get(Offload.CPU_DIT, {})
        if offload in (Offload.CPU_DIT, Offload.STREAM_ENCODERS):
            most = smallest_caps(knobs, _cover(_SECONDS[1], MAX_LYRIC_TOKENS))
            longer = FRAMES_A_SECOND * (_SECONDS[1] - _SECONDS[0])
            heard = max(0, most[Stage.ENCODE_AUDIO] - little[Stage.ENCODE_AUDIO]) + 2 * MIB
            growth = {
                "encode_audio.frames": heard / longer,
                "encode.lyrics": (most[Stage.ENCODE] - little[Stage.ENCODE]) / (MAX_LYRIC_TOKENS - FEWEST_LYRICS),
            }
        # The resident parts differ between these modes; the growth does not.
        growing = {name: growth[name] for name in ("encode_audio.frames", "encode.lyrics")}
        found[offload] = growing | {name: float(little[name]) for name in _FIXED}
    return found | {Offload.STREAM: found[Offload.CPU_DIT]}


def _cover(seconds: int, lyrics: int) -> Workload:
    return Workload(batch=1, duration_s=seconds, lyric_tokens=lyrics, task=Task.COVER, reference_seconds=30)
