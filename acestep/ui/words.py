"""The texts of the page, in the language it was started in."""

import json
from functools import cache
from pathlib import Path
from typing import Final

LOCALES: Final = Path(__file__).parent / "locales"

PAGE_LANGUAGES: Final = ("en", "ko", "ja", "zh")
"""The languages of the page."""


class PageText:
    """The page's sentences by name. Raises `KeyError` for an unknown name: a programming error, not the user's."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._sentences = sentences(language)

    def __call__(self, name: str, /, **values: object) -> str:
        """Return the sentence `name` with its placeholders filled."""
        return self._sentences[name].format(**values) if values else self._sentences[name]

    def has(self, name: str) -> bool:
        """Return whether there is a sentence `name`; not everything needs one."""
        return name in self._sentences


@cache
def sentences(language: str) -> dict[str, str]:
    """Return every sentence of a language, by name."""
    found: dict[str, str] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return found
