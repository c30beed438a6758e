"""Results as text: digests, and the JSON that is committed."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON with sorted keys and no spaces: equal values have equal digests."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def pretty_json(value: Any) -> str:
    """Return a value as the JSON that is committed: two spaces, fields in declared order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def as_text(value: object) -> str:
    """Return a value as text; None is "none"."""
    return "none" if value is None else str(value)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV under a line of `columns`; a text that a spreadsheet would run as a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        formulas = {name for name, value in row.items() if isinstance(value, str) and value.startswith(tuple("=+-@"))}
        writer.writerow({name: f"'{value}" if name in formulas else value for name, value in row.items()})
    return text.getvalue()
