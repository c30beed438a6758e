"""The tensors of one layer in an adapter's file: which there are, and the shape of the weight they change. Pure.

A LoRA is the product of two matrices (arXiv:2106.09685). A LoKr is the Kronecker product of two, each of which may be a
product itself (arXiv:2309.14859; `LokrModule` of LyCORIS).
"""

from collections.abc import Mapping
from enum import StrEnum
from math import prod

Shape = tuple[int, ...]


class AdapterPart(StrEnum):
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


_ENDINGS: Mapping[str, AdapterPart] = {
    **{f".{part}": part for part in AdapterPart if part not in (AdapterPart.DOWN, AdapterPart.UP)},
    **{f".{part}.weight": part for part in (AdapterPart.DOWN, AdapterPart.UP)},
    ".lora_A.weight": AdapterPart.DOWN,
    ".lora_B.weight": AdapterPart.UP,
    ".lora_A.default.weight": AdapterPart.DOWN,
    ".lora_B.default.weight": AdapterPart.UP,
    ".lora_magnitude_vector": AdapterPart.MAGNITUDE,
    ".lora_magnitude_vector.weight": AdapterPart.MAGNITUDE,
    ".lora_magnitude_vector.default.weight": AdapterPart.MAGNITUDE,
}
"""How the names of tensors end, after the name of their layer: kohya's and LyCORIS's, then PEFT's."""

_FIRST = (frozenset({AdapterPart.W1}), frozenset({AdapterPart.W1_A, AdapterPart.W1_B}))
_SECOND = (
    frozenset({AdapterPart.W2}),
    frozenset({AdapterPart.W2_A, AdapterPart.W2_B}),
    frozenset({AdapterPart.W2_A, AdapterPart.W2_B, AdapterPart.T2}),
)
_WHOLE = frozenset(
    {frozenset({AdapterPart.DOWN, AdapterPart.UP}), *(first | second for first in _FIRST for second in _SECOND)}
)
"""The parts that make a change of a weight, besides those that any layer may have."""

_BESIDE = frozenset({AdapterPart.ALPHA, AdapterPart.MAGNITUDE})


def layer_and_part(key: str) -> tuple[str, AdapterPart] | None:
    """Return the layer and the part in the name of a tensor; None for one that no LoRA or LoKr has."""
    for ending, part in _ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), part
    return None


def is_whole(parts: frozenset[AdapterPart]) -> bool:
    """Whether these parts make one change of a weight."""
    return parts - _BESIDE in _WHOLE


def changed_shape(shapes: Mapping[AdapterPart, Shape]) -> Shape:
    """Return the shape of the weight that parts change, [out, in] or [out, in, kernel].

    A factor of a convolution may be flattened, [out, in * kernel]. Raises `ValueError` for parts that do not go
    together.
    """
    if AdapterPart.DOWN in shapes:
        down, up = shapes[AdapterPart.DOWN], shapes[AdapterPart.UP]
        if len(down) < 2 or up[1:] != (down[0],) + (1,) * (len(down) - 2):
            raise ValueError(f"its matrices {list(up)} and {list(down)} cannot be multiplied")
        return (up[0], *down[1:])
    first, second = factors_of(shapes)
    return (first[0] * second[0], first[1] * second[1], *second[2:])


def factors_of(shapes: Mapping[AdapterPart, Shape]) -> tuple[Shape, Shape]:
    """Return the shapes of the two factors of a LoKr; raise `ValueError` for parts that do not go together."""
    first, second = _factor(shapes, AdapterPart.W1, AdapterPart.W1_A, AdapterPart.W1_B), _second_factor(shapes)
    if len(first) != 2 or len(second) < 2:
        raise ValueError(f"its matrices {list(first)} and {list(second)} have no Kronecker product")
    return first, second


def rank_of(shapes: Mapping[AdapterPart, Shape]) -> int | None:
    """Return the inner size of the matrix products; None for a LoKr without one."""
    for part, axis in ((AdapterPart.DOWN, 0), (AdapterPart.W1_A, 1), (AdapterPart.T2, 0), (AdapterPart.W2_A, 1)):
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


def _second_factor(shapes: Mapping[AdapterPart, Shape]) -> Shape:
    if AdapterPart.T2 not in shapes:
        return _factor(shapes, AdapterPart.W2, AdapterPart.W2_A, AdapterPart.W2_B)
    core, rows, columns = (shapes[part] for part in (AdapterPart.T2, AdapterPart.W2_A, AdapterPart.W2_B))
    if len(rows) != 2 or len(columns) != 2 or core[:2] != (rows[0], columns[0]):
        raise ValueError(f"its matrices {list(rows)}, {list(core)} and {list(columns)} cannot be multiplied")
    return (rows[1], columns[1], *core[2:])


def _factor(shapes: Mapping[AdapterPart, Shape], whole: AdapterPart, left: AdapterPart, right: AdapterPart) -> Shape:
    if whole in shapes:
        return shapes[whole]
    rows, columns = shapes[left], shapes[right]
    if len(rows) != 2 or len(columns) != 2 or rows[1] != columns[0]:
        raise ValueError(f"its matrices {list(rows)} and {list(columns)} cannot be multiplied")
    return rows[0], columns[1]
