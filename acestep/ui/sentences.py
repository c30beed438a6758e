"""Warnings and reasons of other rooms in the page's language.

They are written in English where they arise. `locales/sentences/LANGUAGE.json` has a translation for each English text,
in which a {placeholder} stands for a part that varies. A part is translated as well if the file has it.
"""

import re
import string
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from acestep.locale_text import read_texts

SOURCE: Final = "en"
"""The language of the code, which needs no file."""

LONGEST: Final = 2_000
"""Longer texts, which quote what a user wrote, stay as they are: a search for placeholders in them would take long."""

QUOTED: Final = frozenset({"card", "command", "device", "error", "file", "folder", "got", "said"})
"""Placeholders for what must be read as it was written."""

DEEPEST: Final = 4
"""Sentences within sentences: deeper parts stay as they are."""

_NUMBER = "count"
"""The placeholder that stands for a number only, so that a unit can be a sentence."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern of English texts and the text that replaces them. `has_words`: not only marks between its parts."""

    pattern: re.Pattern[str]
    replacement: str
    has_words: bool


class Sentences:
    """Translates English sentences; a text without a translation stays as it is."""

    def __init__(self, folder: Path, language: str) -> None:
        self._templates = () if language == SOURCE else _templates(folder / "sentences" / f"{language}.json")

    def __call__(self, english: str, depth: int = 0) -> str:
        """Return a sentence in the language, or `english` itself; `depth` counts the sentences around it."""
        if len(english) > LONGEST or depth > DEEPEST:
            return english
        for template in self._templates:
            if match := template.pattern.fullmatch(english):
                parts = {
                    name: part if name in QUOTED else self(part, depth + 1) for name, part in match.groupdict().items()
                }
                if template.has_words or parts != match.groupdict():
                    return template.replacement.format(**parts)
        return english


@cache
def _templates(path: Path) -> tuple[Template, ...]:
    """Return the templates of a file. The one with most fixed characters comes first: it says most about a text."""
    texts = read_texts(path)
    ordered = sorted(texts, key=lambda text: sum(map(len, literals(text))), reverse=True)
    return tuple(
        Template(
            pattern=_pattern(text),
            replacement=texts[text],
            has_words=any(character.isalpha() for fixed in literals(text) for character in fixed),
        )
        for text in ordered
    )


def literals(text: str) -> list[str]:
    """Return the fixed parts of a template, in order."""
    return [fixed for fixed, _, _, _ in string.Formatter().parse(text) if fixed]


def _pattern(text: str) -> re.Pattern[str]:
    parts = []
    for fixed, name, _, _ in string.Formatter().parse(text):
        parts.append(re.escape(fixed))
        if name is not None:
            parts.append(f"(?P<{name}>{'[0-9]+(?:[.,][0-9]+)*' if name == _NUMBER else '.*?'})")
    return re.compile("".join(parts), re.DOTALL)
