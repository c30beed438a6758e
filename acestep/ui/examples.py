"""Songs to start from: the requests of the folder `examples`, which the command line can be given too."""

from functools import cache
from pathlib import Path
from typing import Any, Final

from acestep.errors import UsageError
from acestep.strict_json import read_json

_KIND: Final = "text2music"


def _folder() -> Path:
    """The folder of the checkout if there is one, else that of the installed wheel."""
    checkout = Path(__file__).parents[2] / "examples" / _KIND
    return checkout if checkout.is_dir() else Path(__file__).parents[1] / "data" / "examples"


@cache
def _found() -> dict[str, dict[str, Any]]:
    return {path.stem: read_json(path) for path in sorted(_folder().glob("*.json"))}


def example_names(language: str) -> tuple[str, ...]:
    """Return the names of the examples; those with lyrics in a language come first, then those without lyrics."""
    asked = _found()
    return tuple(sorted(asked, key=lambda name: (asked[name].get("language") != language, "lyrics" in asked[name])))


def example(name: str) -> dict[str, Any]:
    """Return the fields of an example's request, without its seed: everyone gets a song of their own.

    Raises `UsageError` for a name that is not among `example_names`.
    """
    asked = _found()
    if name not in asked:
        raise UsageError(f"the example must be one of {', '.join(asked)}, got {name!r}")
    return {field: value for field, value in asked[name].items() if field != "seed"}
