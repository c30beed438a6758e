"""The words of the explorer in every language: its own, and those of acestep's sentences that its scripts say."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Final

from acestep.locale_text import LANGUAGES, LocaleText, read_texts

_OWN: Final = Path(__file__).parent / "locales"

_OF_ACESTEP: Final = Path(str(files("acestep"))) / "ui" / "locales" / "sentences"
"""The translations of what `acestep.limits` says; English needs none."""

_JOIN: Final = re.compile(r"[`\"]\s*\+\s*[`\"]")
"""What stands between the parts of one text in a script."""

_PLACEHOLDER: Final = re.compile(r"\{\w+\}")

_LONG: Final = 12
"""Characters of a fixed part that hardly stands in a script by chance."""


class ExplorerText(LocaleText):
    """The explorer's own words."""

    def __init__(self, language: str) -> None:
        super().__init__(_OWN, language)


def own_texts() -> dict[str, dict[str, str]]:
    """Return the explorer's own words by language."""
    return {language: ExplorerText(language).texts for language in LANGUAGES}


def sentences_said(scripts: str) -> dict[str, dict[str, str]]:
    """Return the translations of the sentences that scripts may say, by language and English text.

    Those are the sentences of which a long fixed part stands in the scripts, and the short ones, which scripts may put
    together of parts.
    """
    said = _JOIN.sub("", scripts)

    def is_said(english: str) -> bool:
        fixed = [part.strip() for part in _PLACEHOLDER.split(english)]
        return max(map(len, fixed)) < _LONG or any(part in said for part in fixed if len(part) >= _LONG)

    return {
        path.stem: {english: text for english, text in read_texts(path).items() if is_said(english)}
        for path in sorted(_OF_ACESTEP.glob("*.json"))
    }
