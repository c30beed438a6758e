"""The tensors of one layer in an adapter's file: which there are, and the shape of the weight they change. Pure.

A LoRA is the product of two matrices (arXiv:2106.09685). A LoKr is the Kronecker product of two, each of which may be a
product itself (arXiv:2309.14859; `LokrModule` of LyCORIS).
"""

from collections.abc import Mapping
from enum import StrEnum
from math import prod

Shape = tuple[int, ...]


class Part(StrEnum):
    """What a tensor is for. `MAGNITUDE` is the length of each row or column of the changed weight (DoRA)."""

    DOWN = "lora_down"
    UP = "lora_up"
    W1 = "lokr_w1"
    W1_A = "lokr_w1_a"
    W1_B = "lokr_w1_b"
    W2 = "lokr_w2"
    W2_A = "lokr_w2_a"
    W2_B = "lokr_w2_b"
    T2 = "lokr_t2"
    ALPHA = "alpha"
    MAGNITUDE = "dora_scale"


_ENDINGS: Mapping[str, Part] = {
    **{f".{part}": part for part in Part if part not in (Part.DOWN, Part.UP)},
    **{f".{part}.weight": part for part in (Part.DOWN, Part.UP)},
    ".lora_A.weight": Part.DOWN,
    ".lora_B.weight": Part.UP,
    ".lora_A.default.weight": Part.DOWN,
    ".lora_B.default.weight": Part.UP,
    ".lora_magnitude_vector": Part.MAGNITUDE,
    ".lora_magnitude_vector.weight": Part.MAGNITUDE,
    ".lora_magnitude_vector.default.weight": Part.MAGNITUDE,
}
"""How the names of tensors end, after the name of their layer: kohya's and LyCORIS's, then PEFT's."""

_FIRST = (frozenset({Part.W1}), frozenset({Part.W1_A, Part.W1_B}))
_SECOND = (
    frozenset({Part.W2}),
    frozenset({Part.W2_A, Part.W2_B}),
    frozenset({Part.W2_A, Part.W2_B, Part.T2}),
)
_WHOLE = frozenset({frozenset({Part.DOWN, Part.UP}), *(first | second for first in _FIRST for second in _SECOND)})
"""The parts that make a change of a weight, besides those that any layer may have."""

_BESIDE = frozenset({Part.ALPHA, Part.MAGNITUDE})


def layer_and_part(key: str) -> tuple[str, Part] | None:
    """Return the layer and the part in the name of a tensor; None for one that no LoRA or LoKr has."""
    for ending, part in _ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), part
    return None


def is_whole(parts: frozenset[Part]) -> bool:
    """Whether these parts make one change of a weight."""
    return parts - _BESIDE in _WHOLE


def changed_shape(shapes: Mapping[Part, Shape]) -> Shape:
    """Return the shape of the weight that parts change, [out, in] or [out, in, kernel].

    A factor of a convolution may be flattened, [out, in * kernel]. Raises `ValueError` for parts that do not go
    together.
    """
    if Part.DOWN in shapes:
        down, up = shapes[Part.DOWN], shapes[Part.UP]
        if len(down) < 2 or up[1:] != (down[0],) + (1,) * (len(down) - 2):
            raise ValueError(f"its matrices {list(up)} and {list(down)} cannot be multiplied")
        return (up[0], *down[1:])
    first, second = _factor(shapes, Part.W1, Part.W1_A, Part.W1_B), _second_factor(shapes)
    if len(first) != 2 or len(second) < 2:
        raise ValueError(f"its matrices {list(first)} and {list(second)} have no Kronecker product")
    return (first[0] * second[0], first[1] * second[1], *second[2:])


def rank_of(shapes: Mapping[Part, Shape]) -> int | None:
    """Return the inner size of the matrix products; None for a LoKr without one."""
    for part, axis in ((Part.DOWN, 0), (Part.W1_A, 1), (Part.T2, 0), (Part.W2_A, 1)):
        if part in shapes:
            return shapes[part][axis]
    return None


def fits(changed: Shape, weight: Shape) -> bool:
    """Whether a change of this shape, perhaps flattened, can be added to a weight."""
    return changed in (weight, (weight[0], prod(weight[1:])))


def is_magnitude_of(magnitude: Shape, weight: Shape) -> bool:
    """Whether a tensor of this shape has one length for each row of a weight, or for each column."""
    ones = (1,) * (len(weight) - 2)
    return magnitude in ((weight[0],), (weight[0], 1, *ones), (1, weight[1], *ones))


def _second_factor(shapes: Mapping[Part, Shape]) -> Shape:
    if Part.T2 not in shapes:
        return _factor(shapes, Part.W2, Part.W2_A, Part.W2_B)
    core, rows, columns = (shapes[part] for part in (Part.T2, Part.W2_A, Part.W2_B))
    if len(rows) != 2 or len(columns) != 2 or core[:2] != (rows[0], columns[0]):
        raise ValueError(f"its matrices {list(rows)}, {list(core)} and {list(columns)} cannot be multiplied")
    return (rows[1], columns[1], *core[2:])


def _factor(shapes: Mapping[Part, Shape], whole: Part, left: Part, right: Part) -> Shape:
    if whole in shapes:
        return shapes[whole]
    rows, columns = shapes[left], shapes[right]
    if len(rows) != 2 or len(columns) != 2 or rows[1] != columns[0]:
        raise ValueError(f"its matrices {list(rows)} and {list(columns)} cannot be multiplied")
    return rows[0], columns[1]
