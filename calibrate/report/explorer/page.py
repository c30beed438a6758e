"""The page: a template, its style, its scripts in the order they need each other, and the numbers."""

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from acestep.knobs import LM_MODELS, Offload, Variant
from acestep.tiers import TierTable
from calibrate.report.explorer.numbers import numbers
from calibrate.report.explorer.words import ExplorerText, own_texts, sentences_said
from calibrate.report.template import template

_FOLDER: Final = Path(__file__).parent

SCRIPTS: Final = (
    *("text.js", "language.js", "card.js", "memory.js", "granting.js", "plan.js", "time.js", "answer.js", "page.js"),
)


def explorer_page(table: TierTable) -> str:
    """Return the explorer as one page that needs nothing from elsewhere."""
    scripts, known = [_read(name) for name in SCRIPTS], as_script(numbers(table))
    return template("explorer.html.j2").render(
        t=ExplorerText("en"),
        style=_read("style.css"),
        scripts=scripts,
        numbers=known,
        texts=as_script(own_texts()),
        sentences=as_script(sentences_said("\n".join([*scripts, known]))),
        variants=[variant.value for variant in Variant if variant in table.variants],
        models=LM_MODELS,
        offloads=[mode.value for mode in Offload],
    )


def as_script(document: object) -> str:
    """Return a document as JSON that no tag inside it can end."""
    return msgspec.json.encode(document).decode("utf-8").replace("<", "\\u003c")


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
