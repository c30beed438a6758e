"""The texts of a page in one language: every sentence from a locale file, every number from the caller."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from acestep.locale_text import LocaleText
from acestep.tiers import Tier
from acestep.vram_range import VramRange

LOCALES_FOLDER = Path(__file__).parent / "locales"


class GuideText(LocaleText):
    """The texts of the guide."""

    def __init__(self, language: str) -> None:
        super().__init__(LOCALES_FOLDER, language)

    def duration(self, seconds: float) -> str:
        """Return a song's length on one line; a dash if none is certified."""
        return on_one_line(super().duration(seconds)) if seconds else "—"

    def songs(self, batch: int, seconds: float) -> str:
        """Return a batch and the length of its songs, on one line."""
        return on_one_line(self("songs_of", n=batch, length=self.duration(seconds)))

    def tier(self, tier: Tier) -> str:
        """Return the name of a tier: its number, a word for the unlimited one, and the id of any other."""
        if tier.id.startswith("tier"):
            return on_one_line(self("tier_numbered", number=tier.id.removeprefix("tier")))
        return self("tier_unlimited") if tier.id == "unlimited" else tier.id

    def range(self, sizes: VramRange) -> str:
        """Return a range of sizes as people say it: "up to 4 GB", "over 4 to 6 GB", "24 GB and more"."""
        if sizes.upper is None:
            return self("range_last", size=f"{sizes.lower:g}")
        if not sizes.lower:
            return self("range_first", size=f"{sizes.upper:g}")
        lower = self("range_from" if sizes.lower_inclusive else "range_over", size=f"{sizes.lower:g}")
        upper = self("range_to" if sizes.upper_inclusive else "range_under", size=f"{sizes.upper:g}")
        return self("range", lower=lower, upper=upper)

    def listed(self, items: Iterable[str]) -> str:
        """Return several items as one phrase."""
        return self("list_comma").join(items)


def on_one_line(text: str) -> str:
    """Return a text that no page breaks."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


@cache
def words_of(language: str) -> GuideText:
    """The words of one of `acestep.locale_text.LANGUAGES`."""
    return GuideText(language)
