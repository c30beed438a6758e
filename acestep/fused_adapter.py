"""An adapter that songs were made with, as their files name it."""

from typing import Annotated

import msgspec

MOST_SCALE = 10.0
"""The largest scale of an adapter; at 1 it changes the weights as it was trained to."""

Scale = Annotated[float, msgspec.Meta(ge=-MOST_SCALE, le=MOST_SCALE)]


class FusedAdapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The name of an adapter's file or folder without its place, its scale, and the SHA-256 of its weights.

    One that is not `fused` stayed apart from the weights, which rounds differently.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    scale: Scale
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    fused: bool = True
