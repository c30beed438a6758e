"""Strict reader for untrusted JSON files: no NaN, no repeated key, no lone surrogate, no unknown field."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from acestep.errors import InvalidInputError
from acestep.regular_file import content_of
from acestep.units import MIB

T = TypeVar("T")

MOST_BYTES = 4 * MIB
"""Size limit of the files that are read, as for contributed records; the largest file shipped is a tenth of it."""

Trail = tuple["Trail", str] | None
"""The place of a value in its document: the trail of its container and one step; None for the document itself."""


def read_json(path: Path) -> Any:
    """Return the document in a JSON file; raise `InvalidInputError` naming the file if it is missing or too large."""
    try:
        text = content_of(path, MOST_BYTES, "a table or record").decode()
        document = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeats)
    except FileNotFoundError:
        raise InvalidInputError(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(path, f"cannot be read ({error})") from None
    except RecursionError:
        raise InvalidInputError(path, "is nested too deeply to be one of ours") from None
    except ValueError as error:
        raise InvalidInputError(path, f"is not JSON ({error}); was it cut short?") from None
    # The file is UTF-8, which has no lone surrogates: only an escape can produce one, and records have none.
    if r"\ud" in text.lower() and (half := _half_character(document)):
        raise InvalidInputError(
            path, f"{half} has half a character in it (a lone surrogate), which UTF-8 cannot encode"
        )
    return document


def load_strict(path: Path, kind: type[T], newest: int) -> T:
    """Return the `kind` in a versioned JSON file, up to `schema_version` `newest`; else raise `InvalidInputError`."""
    document = read_json(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > newest:
        raise InvalidInputError(path, f"schema_version is {version}, this program reads up to {newest}; update it")
    return _converted(path, document, kind)


def read_as(path: Path, kind: type[T]) -> T:
    """Return the `kind` in a JSON file; raise `InvalidInputError` naming the file and the field."""
    return _converted(path, read_json(path), kind)


def _converted(path: Path, document: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(path, _with_names(document, kind, str(error))) from None


_MOST_KEYS = 64
"""Keys of an object that are tried to find the one with a wrong value; objects of real files have fewer."""


def _with_names(document: Any, kind: type[T], problem: str) -> str:
    """Return what msgspec says about a document, with the key where it writes ``[...]``: the one that fails alone."""
    said, at, place = problem.partition(" - at `$")
    *beginnings, end = place.split("[...]")
    holder, named = document, ""
    for beginning in beginnings:
        try:
            for index, name in re.findall(r"\[(\d+)\]|\.(\w+)", beginning):
                holder = holder[int(index)] if index else holder[name]
            entries = dict(holder)
        except (LookupError, TypeError, ValueError):
            return problem
        if len(entries) > _MOST_KEYS:
            return problem
        key = next(
            (name for name in entries if _fails_alone(document, kind, holder, {name: entries[name]}, problem)), None
        )
        if key is None:
            return problem
        named, holder = f"{named}{beginning}.{key[:_MOST_KEYS]}", entries[key]
    return f"{said}{at}{named}{end}"


def _fails_alone(document: Any, kind: type[Any], holder: dict[str, Any], entry: dict[str, Any], problem: str) -> bool:
    """Return whether a document has the same problem with this entry alone in one of its objects, and leave it so."""
    holder.clear()
    holder.update(entry)
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        return str(error) == problem
    return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number JSON knows")


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key {key!r} is there twice")
        document[key] = value
    return document


def _half_character(document: Any) -> str | None:
    """Return the place of a name or text that UTF-8 cannot encode, as `$.tiers[0].label`; None if there is none.

    JSON may escape one half of a UTF-16 surrogate pair; Python reads it, and fails when it is printed.
    """
    rest: list[tuple[Trail, Any]] = [(None, document)]
    while rest:
        trail, node = rest.pop()
        if isinstance(node, dict):
            rest += [((trail, f".{name}"), name) for name in node]
            rest += [((trail, f".{name}"), value) for name, value in node.items()]
        elif isinstance(node, list):
            rest += [((trail, f"[{n}]"), value) for n, value in enumerate(node)]
        elif isinstance(node, str):
            try:
                node.encode()
            except UnicodeEncodeError:
                return _spelled(trail).encode(errors="backslashreplace").decode()
    return None


def _spelled(trail: Trail) -> str:
    # Only the reported place is turned into text: in a deep document each is as long as the document.
    steps = []
    while trail is not None:
        trail, step = trail
        steps.append(step)
    return "$" + "".join(reversed(steps))


_HOLDERS = (str, dict, list)
"""The types of JSON values that are or contain strings."""


def strings_in(document: Any) -> Iterator[tuple[str, str]]:
    """Yield every string in a document with its place, keys included.

    Without recursion, because it may be nested deeply.
    """
    rest: list[tuple[str, Any]] = [("$", document)]
    while rest:
        where, node = rest.pop()
        if isinstance(node, str):
            yield where, node
        elif isinstance(node, dict):
            yield from ((where, key) for key in node)
            # Most values are numbers, whose places are not needed.
            rest += [(f"{where}.{key}", value) for key, value in reversed(node.items()) if isinstance(value, _HOLDERS)]
        elif isinstance(node, list):
            rest += [
                (f"{where}[{number}]", value)
                for number, value in reversed([*enumerate(node)])
                if isinstance(value, _HOLDERS)
            ]
