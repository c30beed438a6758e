"""How much more a stage may take than the record at the base: `tiers/tolerance.json`."""

from pathlib import Path
from typing import Annotated

import msgspec

from acestep.strict_json import read_as

FILE = "tolerance.json"

USUAL_SHARE = 0.02
"""The tolerance of a base without such a file."""


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The share by which a peak may grow without a finding."""

    peak_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = USUAL_SHARE
    why: Annotated[str, msgspec.Meta(min_length=10)] = "The simulation gives the same bytes every time."


def load_tolerance(folder: Path) -> Tolerance:
    """Return the tolerance in a tiers folder, the default if there is no file.

    Raises `InvalidInputError` for a damaged one.
    """
    path = folder / FILE
    return read_as(path, Tolerance) if path.exists() else Tolerance()
