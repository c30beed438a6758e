"""The records of a tiers folder, found by the digest that the table names."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError
from acestep.evidence import short_digest
from calibrate.explain.document import ExplainedSource
from calibrate.record.measurement import Measurement, load_measurement

Recorded = tuple[ExplainedSource, Measurement]

Find = Callable[[str], Recorded]
"""Returns a record by its digest; raises `InvalidInputError` if it is missing or invalid."""


class _Stamp(msgspec.Struct):
    """The part of a record that identifies it: reading all of it takes a tenth of a second for each file."""

    digest: str


def records_in(folder: Path) -> Find:
    """Finds records in `measurements/` of a tiers folder, reading each at most once."""

    @cache
    def find(digest: str) -> Recorded:
        for path in sorted((folder / "measurements").glob("*.json")):
            if path.is_file() and _stamp(path) == digest:
                record = load_measurement(path)
                return _source(path, record), record
        raise InvalidInputError(
            folder / "measurements",
            f"no file here is the record {short_digest(digest)} that the table names; run `python -m calibrate merge`"
            " to make the table from the records that are here, or name the table's own folder with --folder"
            " (an installed package brings no records: use a checkout)",
        )

    return find


def _stamp(path: Path) -> str | None:
    """Return the digest that a file declares; None if it declares none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Stamp).digest
    except (OSError, msgspec.MsgspecError):
        return None


def _source(path: Path, record: Measurement) -> ExplainedSource:
    here = Path.cwd()
    file = path.relative_to(here) if path.is_relative_to(here) else path
    return ExplainedSource(file=str(file), digest=record.digest, card=record.card, code_version=record.code_version)
