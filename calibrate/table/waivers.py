"""Cells of the table that may be below their target, each with a reason: `tiers/waivers.json`."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.knobs import Variant
from acestep.strict_json import read_as
from calibrate.files import as_text

FLOOR = "floor"
"""The end of a waiver for a proven optimum; it never expires."""


RECORD = "record"
"""The field of an entry that lets one record raise a tier above the simulation; its value is the record's digest."""

_NAMED = re.compile(r"@[A-Za-z0-9-]{1,39}\b")
"""A maintainer's name, as on GitHub."""


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Permission for one field of one tier to be `value` and no worse, until a day or, if proven optimal, forever."""

    variant: Variant
    tier: Annotated[str, msgspec.Meta(min_length=1)]
    field: Annotated[str, msgspec.Meta(min_length=1)]
    value: int | float | str | None
    why: Annotated[str, msgspec.Meta(pattern=r"\S.{8,}\S")]
    until: Annotated[str, msgspec.Meta(pattern=r"^(floor|\d{4}-\d{2}-\d{2})$")]

    def __post_init__(self) -> None:
        if self.field == RECORD and not _NAMED.search(self.why):
            raise ValueError("why must name the maintainer who answers for the record, for example @maintainer")
        if self.until != FLOOR:
            datetime.date.fromisoformat(self.until)

    def expired(self, today: datetime.date) -> bool:
        """Whether its last day has passed."""
        return self.until != FLOOR and datetime.date.fromisoformat(self.until) < today

    def covers(self, variant: Variant, tier: str, field: str, value: str) -> bool:
        """Return whether it is about this cell with exactly this value, as text."""
        return (self.variant, self.tier, self.field, as_text(self.value)) == (variant, tier, field, value)


def trusted_records(waivers: Sequence[Waiver], variant: Variant, tier: str) -> frozenset[str]:
    """Return the digests of the records that may raise a tier by themselves, because a maintainer answers for them.

    The gate refuses entries that have expired; until they are taken out, the table stays as it is.
    """
    named = (one for one in waivers if (one.variant, one.tier, one.field) == (variant, tier, RECORD))
    return frozenset(as_text(one.value) for one in named)


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Return the waivers in a file, none if it does not exist; `InvalidInputError` names the file and the field."""
    return read_as(path, tuple[Waiver, ...]) if path.exists() else ()
