"""Values that are made in Python hold what their fields say, as those that come from a file or the command line do."""

from functools import cache
from typing import Any

import msgspec


def take_types(value: msgspec.Struct) -> None:
    """Bring each field of a value that is being created into its type, such as a list into a tuple.

    Raises `ValueError` naming the field for what is of another type: a text is no number, and a number no text.
    """
    for name, kind in _kinds(type(value)):
        given = getattr(value, name)
        if getattr(given, "shape", None) == ():
            # A number of numpy's.
            given = given.item()
        try:
            msgspec.structs.force_setattr(value, name, msgspec.convert(given, kind))
        except msgspec.ValidationError as error:
            shown = given if isinstance(given, str | int | float) else type(given).__name__
            raise ValueError(f"{name} cannot be {shown!r}: {error}") from None


@cache
def _kinds(struct: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(struct))
