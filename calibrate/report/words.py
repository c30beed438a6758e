"""The texts of a page in one language: every sentence from a locale file, every number from the caller."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from acestep.strict_json import read_json
from acestep.tiers import Tier

GUIDE_LANGUAGES = ("en", "ko", "ja", "zh")
"""The languages of the guide, by the names of their locale files."""

LOCALES_FOLDER = Path(__file__).parent / "locales"


class GuideText(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of a language by their keys; calling it returns one text with its placeholders filled."""

    language: str
    texts: dict[str, str]

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the text of a key; raise `KeyError` for an unknown key or placeholder."""
        return self.texts[key].format(**values)

    def duration(self, seconds: int) -> str:
        """Return a song's length on one line; a dash if none is certified."""
        minutes, rest = divmod(seconds, 60)
        if seconds == 0:
            return "—"
        parts = [self("minutes", n=minutes) if minutes else "", self("seconds", n=rest) if rest else ""]
        return " ".join(part for part in parts if part).replace(" ", "\N{NO-BREAK SPACE}")

    def tier(self, tier: Tier) -> str:
        """What a tier is called: its number, a word for the unlimited one, and the id of any other."""
        if tier.id.startswith("tier"):
            return self("tier_numbered", number=tier.id.removeprefix("tier"))
        return self("tier_unlimited") if tier.id == "unlimited" else tier.id

    def listed(self, items: Iterable[str]) -> str:
        """Return several items as one phrase."""
        return self("list_comma").join(items)


@cache
def words_of(language: str) -> GuideText:
    """The words of one of `LANGUAGES`."""
    return GuideText(language=language, texts=read_json(LOCALES_FOLDER / f"{language}.json"))
