"""The sentences of one language, from a file of its own."""

from functools import cache
from pathlib import Path
from typing import Final

from acestep.strict_json import read_json
from acestep.units import minutes

LANGUAGES: Final = ("en", "ko", "ja", "zh")
"""The languages of the page and of the guide, by the names of their files."""


class LocaleText:
    """The texts of a language by their keys; calling it gives one text with its placeholders filled.

    Raises `KeyError` for a key or placeholder that is not there: a mistake in the code, not of a person.
    """

    def __init__(self, folder: Path, language: str) -> None:
        self.language = language
        self.texts = read_texts(folder / f"{language}.json")

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of a key."""
        return self.texts[key].format(**values)

    def duration(self, seconds: float) -> str:
        """A song's length as a musician says it."""
        return minutes(seconds, lambda n: self("minutes", count=n), lambda n: self("seconds", count=n))


@cache
def read_texts(path: Path) -> dict[str, str]:
    """Every text of a language by its key."""
    texts: dict[str, str] = read_json(path)
    return texts
