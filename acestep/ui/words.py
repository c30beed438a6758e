"""What the page says, in the language it was started in."""

import json
from functools import cache
from pathlib import Path
from typing import Final

LOCALES: Final = Path(__file__).parent / "locales"

PAGE_LANGUAGES: Final = ("en", "ko", "ja", "zh")
"""The languages the page can speak."""


class PageText:
    """The page's sentences by name. Raises `KeyError` for a name that has none: a mistake here, not of a person."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._sentences = sentences(language)

    def __call__(self, name: str, /, **values: object) -> str:
        """The sentence `name` with its gaps filled."""
        return self._sentences[name].format(**values) if values else self._sentences[name]

    def has(self, name: str) -> bool:
        """Whether there is a sentence `name`; not everything needs one."""
        return name in self._sentences


@cache
def sentences(language: str) -> dict[str, str]:
    """Every sentence of a language, by name."""
    found: dict[str, str] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return found
