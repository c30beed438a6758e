"""Cells of the table that may be below their target, each with a reason: `tiers/waivers.json`."""

import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.knobs import Variant
from acestep.strict_json import read_as
from calibrate.files import as_text

FLOOR = "floor"
"""The end of a waiver for a proven optimum; it never expires."""


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Permission for one field of one tier to be `value` and no worse, until a day or, if proven optimal, forever."""

    variant: Variant
    tier: Annotated[str, msgspec.Meta(min_length=1)]
    field: Annotated[str, msgspec.Meta(min_length=1)]
    value: int | float | str | None
    why: Annotated[str, msgspec.Meta(pattern=r"\S.{8,}\S")]
    until: Annotated[str, msgspec.Meta(pattern=r"^(floor|\d{4}-\d{2}-\d{2})$")]

    def __post_init__(self) -> None:
        if self.until != FLOOR:
            datetime.date.fromisoformat(self.until)

    def expired(self, today: datetime.date) -> bool:
        """Whether its last day has passed."""
        return self.until != FLOOR and datetime.date.fromisoformat(self.until) < today

    def covers(self, variant: Variant, tier: str, field: str, value: str) -> bool:
        """Return whether it is about this cell with exactly this value, as text."""
        return (self.variant, self.tier, self.field, as_text(self.value)) == (variant, tier, field, value)


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Return the waivers in a file, none if it does not exist; `InvalidInputError` names the file and the field."""
    return read_as(path, tuple[Waiver, ...]) if path.exists() else ()
