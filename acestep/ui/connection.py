"""What the page does when the program behind it goes away: it says so, and loads again once the program answers.

It also says gradio's own messages, which are in English, in the page's language.
The words that were typed stay, in the browser.
"""

import json
from pathlib import Path
from typing import Final

from acestep.ui.failures import FailedRun, FailureKind
from acestep.ui.views import failure_html
from acestep.ui.words import PageText

SCRIPT: Final = Path(__file__).parent / "connection.js"

RESTORED: Final = ("caption", "lyrics", "failure")
"""What the script sets when the page is there."""


def connection_js(words: PageText) -> str:
    """The script of a page, as gradio takes it for an event without a handler."""
    said = {
        "lost": words("connection_lost"),
        "back": words("connection_back"),
        "title": words("error"),
        "busy": words("failed_not_started"),
        "unexpected": words("failed_unexpected"),
        "failure": failure_html(FailedRun(kind=FailureKind.DISCONNECTED), words),
    }
    _, begin, function = SCRIPT.read_text(encoding="utf-8").partition("() => {")
    return (begin + function.rstrip()).replace("WORDS", json.dumps(said), 1)
