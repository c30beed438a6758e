"""The fields of a table's row by their paths, such as `max_batch.with_lm`, and the cells that they consist of."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from acestep.evidence import Evidence
from acestep.tiers import LmNeeds, SizeBoundary, Tier, VariantTable
from acestep.vram_range import VramRange

_ONE_CELL = (VramRange, Evidence, SizeBoundary, LmNeeds)
"""Objects that make one statement, and so form one cell."""


class ExplainedField(msgspec.Struct, frozen=True, kw_only=True):
    """A path, its value as JSON has it, and the cells that explain it.

    The cells of an object such as `frontier` are below it. A `part` is inside its cell, as `vram_gib.lower` is.
    """

    path: str
    value: Any
    cells: tuple[str, ...]
    part: bool = False


def fields_of(tier: Tier, table: VariantTable) -> dict[str, ExplainedField]:
    """Every field of a row in the order of the table, then the boundaries of its variant."""
    written = msgspec.to_builtins(tier)
    row = {name: getattr(tier, name) for name in written} | {"boundaries": table.boundaries}
    return {field.path: field for name, value in row.items() for field in _walk(name, value)}


def shown_fields(fields: Mapping[str, ExplainedField], text: str) -> list[str]:
    """Return the fields to suggest to a user who typed `text`: no parts of cells, `evidence` only if asked."""
    whole = [path for path, field in fields.items() if not field.part]
    return [path for path in whole if not path.startswith("evidence.") or text.startswith("evidence")]


def _walk(path: str, value: Any) -> Iterator[ExplainedField]:
    """A field, then what is inside it."""
    parts = _parts(value)
    if isinstance(value, _ONE_CELL) or not parts:
        yield _field(path, value, (path,))
        yield from _inside(path, value, path)
        return
    below = [field for name, part in parts.items() for field in _walk(f"{path}.{name}", part)]
    yield _field(path, value, tuple(dict.fromkeys(cell for field in below for cell in field.cells)))
    yield from below


def _inside(path: str, value: Any, cell: str) -> Iterator[ExplainedField]:
    for name, part in _parts(value).items():
        yield _field(f"{path}.{name}", part, (cell,), part=True)
        yield from _inside(f"{path}.{name}", part, cell)


def _parts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return value if isinstance(value, dict) else {}


def _field(path: str, value: Any, cells: tuple[str, ...], *, part: bool = False) -> ExplainedField:
    return ExplainedField(path=path, value=msgspec.json.decode(msgspec.json.encode(value)), cells=cells, part=part)
