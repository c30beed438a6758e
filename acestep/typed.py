"""Type checks for values that users and Python programs give."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import msgspec

from acestep.errors import UsageError

Given = TypeVar("Given")


def from_user(given: Mapping[str, Any], kind: type[Given], sentence: str = "{}") -> Given:
    """Return a `kind` with these fields; raise `UsageError` with a `sentence`, "{}" standing for the problem."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise UsageError(sentence.format(error)) from None


@contextmanager
def values_of_user() -> Iterator[None]:
    """Raise a `ValueError` inside the block as `UsageError`, because the value came from a user."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def take_types(value: msgspec.Struct) -> None:
    """Convert each field of a value that is being created to its type, such as a list to a tuple.

    Raises `ValueError` naming a field of another type: a text is not a number, and a number is not a text.
    """
    for name, kind in _kinds(type(value)):
        given = getattr(value, name)
        if getattr(given, "shape", None) == ():
            # A NumPy scalar.
            given = given.item()
        try:
            msgspec.structs.force_setattr(value, name, msgspec.convert(given, kind))
        except msgspec.ValidationError as error:
            shown = given if isinstance(given, str | int | float) else type(given).__name__
            raise ValueError(f"{name} cannot be {shown!r}: {error}") from None


@cache
def _kinds(struct: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(struct))
