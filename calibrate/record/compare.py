"""The changes between two records, or between two tables: value by value, and whether each is an improvement."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import UsageError
from acestep.knobs import KNOBS, LM_MODELS, Knobs
from acestep.request import DecodePath
from acestep.strict_json import read_json
from acestep.tiers import TierTable, load_tiers
from calibrate.record.measurement import Measurement, RecordedProbe, load_measurement
from calibrate.verdict import Verdict
from calibrate.workload import Workload

TableValue = int | float | str | bool | None

Sheet = Mapping[str, Mapping[str, TableValue]]
"""All values of a file, by place and field."""

_CLOCKS_AGREE = 0.1
"""Share by which two times of the same work differ between runs without any meaning."""

_MORE = (
    *("max_duration_s", "max_batch", "frontier", "lm_models", "recommended_lm", "lm_songs_per_pass"),
    *("backends_allowed", "longest_s", "songs_per_pass"),
)
_LESS = (
    *("fits_gib", "fails_gib", "peak_allocated_bytes", "peak_reserved_bytes", "seconds"),
    *("verdict", "decode_path"),
)
_ORDERED: Mapping[str, Sequence[TableValue]] = {
    "verdict": [verdict.value for verdict in Verdict],
    "decode_path": [path.value for path in DecodePath],
    "recommended_lm": [None, *LM_MODELS],
}


class Way(StrEnum):
    """Whether a change is an improvement, worst first."""

    WORSE = "worse"
    REMOVED = "removed"
    CHANGED = "changed"
    ADDED = "added"
    BETTER = "better"


class TableChange(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs; a place that only one side has is listed once, without a field.

    `growth` is the change as a share of the value before, 0 if there is no such share.
    """

    place: str
    field: str
    before: TableValue
    after: TableValue
    way: Way
    growth: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `python -m calibrate compare`: `kind` is `record` or `table`, the worst comes first."""

    kind: str
    before: str
    after: str
    changes: tuple[TableChange, ...]


def compare(before: Path, after: Path) -> Comparison:
    """Compare two files of one kind; `InvalidInputError` for a damaged one."""
    kind, other = _kind(before), _kind(after)
    if kind != other:
        raise UsageError(f"{before} is a {kind} and {after} is a {other}; compare two records or two tables")
    if kind == "table":
        sheets = table_sheet(load_tiers(before)), table_sheet(load_tiers(after))
    else:
        sheets = record_sheet(load_measurement(before)), record_sheet(load_measurement(after))
    return Comparison(kind=kind, before=str(before), after=str(after), changes=differences(*sheets))


def differences(before: Sheet, after: Sheet) -> tuple[TableChange, ...]:
    """Every value that differs between two sheets, the worst first, otherwise in the order of the sheets."""
    found: list[TableChange] = []
    for place in dict.fromkeys([*before, *after]):
        if place not in after:
            found.append(_whole(place, Way.REMOVED))
        elif place not in before:
            found.append(_whole(place, Way.ADDED))
        else:
            found += _values(place, before[place], after[place])
    ranks = list(Way)
    return tuple(sorted(found, key=lambda change: ranks.index(change.way)))


def table_sheet(table: TierTable) -> Sheet:
    """What a table says, by tier."""
    sheet = {"table": dict(_leaves("", msgspec.to_builtins(table.generated_from)))}
    for variant, found in table.variants.items():
        rows = [(tier, "") for tier in found.tiers] + [(tier, " on Windows") for tier in found.windows]
        for tier, where in rows:
            fields = msgspec.to_builtins(tier)
            fields["evidence"] = {name: evidence["kind"] for name, evidence in fields["evidence"].items()}
            sheet[f"{variant} {tier.id}{where}"] = dict(_leaves("", fields))
        sheet[f"{variant} boundaries"] = dict(_leaves("", msgspec.to_builtins(found.boundaries)))
        sheet[f"{variant} memory model"] = dict(found.memory_model)
    return sheet


def record_sheet(record: Measurement) -> Sheet:
    """What a record says: its circumstances, every boundary and every probe."""
    sheet: dict[str, dict[str, TableValue]] = {
        "record": {
            **dict(_leaves("card", msgspec.to_builtins(record.card))),
            **dict(_leaves("environment", msgspec.to_builtins(record.environment))),
            "cap_method": record.cap_method.value,
            "code_version": record.code_version,
        }
    }
    for certificate in record.certificates:
        place = f"boundary: {_told(certificate.knobs)} batch={certificate.batch} cap_bytes={certificate.cap_bytes}"
        sheet[place] = {"longest_s": record.longest(certificate)}
    for probe in record.probes:
        place = f"probe: {_told(probe.knobs)} {_told(probe.workload)} cap_bytes={probe.cap_bytes}"
        sheet[place] = dict(_probe_fields(probe))
    return sheet


def _probe_fields(probe: RecordedProbe) -> Iterator[tuple[str, TableValue]]:
    yield "verdict", probe.verdict.value
    yield "songs_per_pass", probe.songs_per_pass
    yield "decode_path", probe.decode_path.value
    # The bytes of an unfinished run depend on where it stopped.
    for stage in probe.stages if probe.verdict in (Verdict.FITS, Verdict.DEGRADED) else ():
        yield from _leaves(stage.name, {k: v for k, v in msgspec.to_builtins(stage).items() if k != "name"})


def _told(value: Knobs | Workload) -> str:
    """Return every knob or length that is not the default, and always the variant, batch and duration."""
    usual = msgspec.to_builtins(Knobs() if isinstance(value, Knobs) else Workload(batch=1, duration_s=1.0))
    always = ("variant", "batch", "duration_s")
    said = msgspec.to_builtins(value)
    return " ".join(f"{name}={said[name]}" for name in said if name in always or said[name] != usual.get(name))


def _kind(path: Path) -> str:
    document = read_json(path)
    return "table" if isinstance(document, dict) and "variants" in document else "record"


def _leaves(name: str, value: Any) -> Iterator[tuple[str, TableValue]]:
    """The single values below a value, lists as one text each."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, below)
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _values(place: str, before: Mapping[str, TableValue], after: Mapping[str, TableValue]) -> Iterator[TableChange]:
    for field in dict.fromkeys([*before, *after]):
        old, new = before.get(field), after.get(field)
        if old != new and not (field.endswith("seconds") and _clocks_agree(_clocks(old, new))):
            growth = _growth(old, new)
            yield TableChange(place=place, field=field, before=old, after=new, way=_way(field, old, new), growth=growth)


def _clocks(before: TableValue, after: TableValue) -> list[int | float]:
    """Return both times; none if one is missing or 0, from a card without a clock."""
    both = [number for number in _numbers(before, after) if number > 0]
    return both if len(both) > 1 else []


def _clocks_agree(both: list[int | float]) -> bool:
    return bool(both) and max(both) <= min(both) * (1 + _CLOCKS_AGREE)


def _way(field: str, before: TableValue, after: TableValue) -> Way:
    *above, name = field.split(".")
    if "evidence" in above or (name.endswith("_bytes") and None in (before, after)):
        return Way.CHANGED
    if name == "seconds" and not _clocks(before, after):
        return Way.CHANGED
    if (knob := KNOBS.get(name)) and knob.saves and {before, after} <= set(knob.values):
        return _better(knob.rank(before), knob.rank(after))
    old, new = _rank(name, before), _rank(name, after)
    if {name, *above} & set(_MORE):
        return _better(new, old)
    return _better(old, new) if name in _LESS else Way.CHANGED


def _rank(name: str, value: TableValue) -> float:
    order = _ORDERED.get(name, ())
    if value in order:
        return float(order.index(value))
    if isinstance(value, str):
        return float(len(value.split(", ")) if value else 0)
    # "No size" is worse than any size from which something fits.
    return float("inf") if name == "fits_gib" and value == 0 else float(value or 0)


def _better(good: float, bad: float) -> Way:
    return Way.BETTER if good > bad else Way.WORSE if good < bad else Way.CHANGED


def _growth(before: TableValue, after: TableValue) -> float:
    numbers = _numbers(before, after)
    return (numbers[1] - numbers[0]) / abs(numbers[0]) if len(numbers) > 1 and numbers[0] else 0.0


def _numbers(*values: TableValue) -> list[int | float]:
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _whole(place: str, way: Way) -> TableChange:
    return TableChange(place=place, field="", before=None, after=None, way=way, growth=0.0)
