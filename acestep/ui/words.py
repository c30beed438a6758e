"""The texts of the page, in the language it was started in."""

from pathlib import Path
from typing import Final

from acestep.knobs import NONE_NAMES
from acestep.locale_text import LocaleText
from acestep.ui.sentences import Sentences

LOCALES: Final = Path(__file__).parent / "locales"


class PageText(LocaleText):
    """The page's texts by name, and with `sentence` those of other rooms."""

    def __init__(self, language: str) -> None:
        super().__init__(LOCALES, language)
        self.sentence = Sentences(LOCALES, language)

    def has(self, name: str) -> bool:
        """Return whether there is a sentence `name`; not everything needs one."""
        return name in self.texts

    def choice(self, choice: str, *, of: str | None = None) -> str:
        """The text of a choice, of the control `of`; no quantization is full precision."""
        if choice == NONE_NAMES[0] and of in ("quantization", "lm_quantization"):
            choice = "full_precision"
        name = "choice_" + choice.replace(" ", "_").replace("+", "_")
        return self(name) if self.has(name) else choice
