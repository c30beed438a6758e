"""What the page does when the program stops: it says so, and reloads once the program answers again.

It also shows gradio's own messages, which are in English, in the page's language. The text that the user typed is kept
in the browser.
"""

import json
from pathlib import Path
from typing import Final

from acestep.serving.failures import FailedRun, FailureKind
from acestep.ui.views import failure_html
from acestep.ui.words import PageText

SCRIPT: Final = Path(__file__).parent / "connection.js"

RESTORED: Final = ("caption", "lyrics", "failure")
"""A variable that the script sets when the page is loaded."""


def connection_js(words: PageText) -> str:
    """Return the script of a page, in the form gradio takes for an event without a handler."""
    said = {
        "lost": words("connection_lost"),
        "back": words("connection_back"),
        "error": words("error"),
        "warning": words("warnings"),
        "busy": words("failed_not_started"),
        "kind": words("upload_kind"),
        "size": words("upload_size"),
        "failed": words("upload_failed"),
        "failure": failure_html(FailedRun(kind=FailureKind.DISCONNECTED), words),
    }
    _, begin, function = SCRIPT.read_text(encoding="utf-8").partition("() => {")
    return (begin + function.rstrip()).replace("WORDS", json.dumps(said), 1)
