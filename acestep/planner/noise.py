"""Random numbers by place instead of in a row: one for each seed, step and token id, whoever asks and in any order.

A token is drawn as the one whose logit plus Gumbel noise is highest, which draws it with its probability. The winner is
almost never within rounding of the second, so another batch size, whose sums round otherwise, writes the same song. A
draw along cumulated probabilities has as many edges to fall off as there are tokens.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
"""The constants of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""


def gumbel(seed: int, step: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard Gumbel noise for token ids at a step of a sequence."""
    stream = _mixed(_mixed(np.array([seed], dtype=np.uint64)) + np.uint64(step))
    bits = _mixed(stream + ids.astype(np.uint64)) >> np.uint64(11)
    # 53 bits, moved off both ends of the interval so that neither logarithm sees a zero.
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for each value as a counter; sums wrap around, as they should."""
    with np.errstate(over="ignore"):
        values = values * _STEP + _STEP
        values = (values ^ (values >> np.uint64(30))) * _MIX_1
        values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
