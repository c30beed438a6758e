"""Reads untrusted measurement files: with limits, and refusals that name the broken rule; nothing is evaluated."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import InvalidInputError
from acestep.regular_file import content_of
from acestep.strict_json import MOST_BYTES
from acestep.units import mib
from calibrate.probes.base import SAFE_TEXT
from calibrate.record.flaws import Flaw, FlawedError
from calibrate.record.measurement import RECORD_SCHEMA_VERSION, load_measurement
from calibrate.record.rules import MOST_PROBES, RECORD_RULES, Broken, RecordRule, RuleLevel, broken_rules, declared

MOST_LEVELS = 12
"""Largest depth of a document; a measurement needs half of it."""

_MOST_FINDINGS = 20
"""Largest number of unsafe places reported for one file."""

_LONGEST_TEXT = 80
"""Largest number of characters of a place or text, in a message and in a safe document."""

_LARGEST_NUMBER = 2**53
"""Above it JSON readers do not agree on the number."""

_FILE = declared("V001", f"a file that can be read, of at most {mib(MOST_BYTES)}")
_JSON = declared("V002", "one JSON document in UTF-8, whole")
_DEPTH = declared("V003", f"nested at most {MOST_LEVELS} deep")
_NUMBERS = declared("V004", "every number finite and within 2^53")
_KEYS = declared("V005", "no key twice in an object")
_TEXT = declared("V006", "text of at most 80 characters of A-Z a-z 0-9 and space ._+:/()@-")
_VERSION = declared("V007", f"a measurement of a schema_version up to {RECORD_SCHEMA_VERSION}")
_UNKNOWN = declared("V008", "no field that the schema does not know")
_SHAPE = declared("V009", "every field there, of its kind and within its range")
_BRACKET = declared("V010", "certificates that point at probes of their own and bracket a boundary")
_DIGEST = declared("V011", "a digest that is that of the content")

_RULE_OF = {
    Flaw.TEXT: _TEXT,
    Flaw.VERSION: _VERSION,
    Flaw.UNKNOWN: _UNKNOWN,
    Flaw.SHAPE: _SHAPE,
    Flaw.BRACKET: _BRACKET,
    Flaw.DIGEST: _DIGEST,
}
"""The rule for each flaw of an unreadable record."""


class BrokenRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that a file breaks, in the form for a person or a script."""

    id: str
    level: RuleLevel
    file: str
    field: str
    message: str


class _Repeated(dict[str, Any]):
    """An object with a repeated key."""

    key = ""


def validate(path: Path) -> list[BrokenRule]:
    """Return everything that is wrong with a contributed file; empty if nothing is."""
    return [as_finding(path, broken) for broken in _broken(path)]


def as_finding(path: Path, broken: Broken) -> BrokenRule:
    """Return a broken rule in the form for a person or a script."""
    return BrokenRule(
        id=broken.rule.id,
        level=broken.rule.level,
        file=safe_text(str(path)),
        field=safe_text(broken.field),
        message=safe_text(f"{broken.problem}; the rule: {broken.rule.promise}"),
    )


def _broken(path: Path) -> Sequence[Broken]:
    try:
        document = _parsed(path)
    except _RefusedError as refused:
        return [refused.broken]
    if hostile := list(islice(_hostile(document), _MOST_FINDINGS)):
        return hostile
    try:
        record = load_measurement(path)
    except FlawedError as error:
        return [Broken(rule=_RULE_OF[error.flaw], field=error.field, problem=error.said)]
    except InvalidInputError as error:
        return [Broken(rule=_SHAPE, field="$", problem=error.problem)]
    return broken_rules(record)


class _RefusedError(Exception):
    def __init__(self, rule: RecordRule, problem: str) -> None:
        super().__init__(problem)
        self.broken = Broken(rule=rule, field="$", problem=problem)


def _parsed(path: Path) -> Any:
    try:
        text = content_of(path, MOST_BYTES, "a measurement file").decode()
    except InvalidInputError as error:
        raise _RefusedError(_FILE, error.problem) from None
    except OSError as error:
        raise _RefusedError(_FILE, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _RefusedError(_JSON, f"byte {error.start} is no UTF-8") from None
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise _RefusedError(_DEPTH, "is nested far deeper") from None
    except ValueError as error:
        raise _RefusedError(_JSON, f"{error}; was it cut short?") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            repeated = _Repeated(pairs)
            repeated.key = key
            return repeated
        document[key] = value
    return document


def _hostile(document: Any) -> Iterator[Broken]:
    """Yield what no measurement may contain anywhere, found without recursion."""
    rest: list[tuple[str, Any, int]] = [("$", document, 1)]
    while rest:
        field, node, level = rest.pop()
        if level > MOST_LEVELS:
            yield Broken(rule=_DEPTH, field=field, problem="is nested deeper")
        elif isinstance(node, dict):
            if isinstance(node, _Repeated):
                yield Broken(rule=_KEYS, field=_below(field, node.key), problem="is there twice")
            yield from (problem for key in node for problem in _unsafe(_below(field, key), key))
            rest += [(_below(field, key), value, level + 1) for key, value in reversed(node.items())]
        elif isinstance(node, list) and len(node) > MOST_PROBES:
            yield Broken(rule=RECORD_RULES["V101"], field=field, problem=f"are {len(node)}")
        elif isinstance(node, list):
            rest += [(f"{field}[{number}]", value, level + 1) for number, value in reversed([*enumerate(node)])]
        else:
            yield from _unsafe(field, node)


def _below(field: str, key: str) -> str:
    """Return the place of a key, shortened to the length of a safe key, because each value below repeats it."""
    return f"{field}.{key[:_LONGEST_TEXT]}"


def _unsafe(field: str, value: Any) -> Iterator[Broken]:
    if isinstance(value, str) and not re.fullmatch(SAFE_TEXT, value):
        yield Broken(rule=_TEXT, field=field, problem=f"is {value[:_LONGEST_TEXT]!r}")
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST_NUMBER:
        yield Broken(
            rule=_NUMBERS, field=field, problem=f"is {value:g}" if isinstance(value, float) else "is too large"
        )


def safe_text(text: str) -> str:
    """Return text from a file in a form that is safe for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:300]
