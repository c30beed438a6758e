"""The measured speed of a device: four rates that decide how long a song takes on it."""

from typing import Annotated

import msgspec

from acestep.hardware.card import CardKind

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class MeasuredSpeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `acestep doctor --measure` found, on the device that computes songs here.

    `products_tflops` is the rate of matrix products of the transformer's shapes in `dtype`, `copy_gbs` the bytes read
    and written in a large copy, `bus_gbs` the rate from page-locked memory to the card, None for a device without
    memory of its own or where no memory can be locked; rates in 10^12 operations and 10^9 bytes a second. `launch_us`
    is the time from the start of one small kernel to the next. It took `seconds`.
    """

    kind: CardKind
    name: str
    total_bytes: Annotated[int, msgspec.Meta(ge=0)]
    capability: tuple[int, int]
    dtype: str
    products_tflops: _Positive
    copy_gbs: _Positive
    bus_gbs: _Positive | None
    launch_us: _Positive
    seconds: float
