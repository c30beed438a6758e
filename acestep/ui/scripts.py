"""The scripts of the page, in the form gradio takes for an event without a handler.

`connection.js` notices when the program stops, and reloads the page once it answers again. `songs.js` plays the songs
and sends what is clicked. `plan.js` shows a plan, and discards one that no longer fits the form. `notify.js` tells the
end of a run to a visitor who is elsewhere. The form is kept in the browser as long as the tab is open, and the name of
the visitor's folder longer.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from acestep.serving.failures import FailedRun, FailureKind
from acestep.ui.form import KEPT
from acestep.ui.views import failure_html, warnings_html
from acestep.ui.words import PageText

RESTORED: Final = (*KEPT, "failure")
"""What `connection_js` sets when the page is loaded."""

_FORM: Final = "acestep-form"

KEEP_JS: Final = f"""(...values) => {{
  const names = {json.dumps(KEPT)};
  const form = Object.fromEntries(names.map((name, place) => [name, values[place]]));
  // Before the form of the last visit is restored, its fields have their first values.
  if (window.acestepRestored) sessionStorage.setItem("{_FORM}", JSON.stringify(form));
  return [];
}}"""
"""Keeps the form, whose fields `KEPT` it is given."""

VISITOR_JS: Final = """() => {
  let name = localStorage.getItem("acestep-visitor") ?? "";
  if (!/^[0-9a-f]{32}$/.test(name)) {
    const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
    name = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("acestep-visitor", name);
  }
  return [name];
}"""
"""Gives the name of this browser's folder, which cannot be guessed."""

ACTED_JS: Final = "() => { window.acestepActed?.(); return []; }"
"""Goes on where the program has answered a click on a song."""

PLAN_ASKED_JS: Final = "() => window.acestepPlan.asked()"
"""Notes that a plan is made from the form as it is now."""

PLAN_MADE_JS: Final = "() => window.acestepPlan.made()"
"""Brings a plan that was made into view; gives what `PLAN_CHANGED_JS` gives."""

PLAN_CHANGED_JS: Final = "(planned) => window.acestepPlan.changed(planned)"
"""Discards a plan whose fields were changed on the form; gives `planned` and the warnings."""


def connection_js(words: PageText, choices: Mapping[str, Sequence[str]]) -> str:
    """Return the script that watches the connection and restores the form.

    A field of `choices` is restored only to one of them.
    """
    return _script(
        "connection",
        {
            "form": _FORM,
            "fields": KEPT,
            "choices": choices,
            "lost": words("connection_lost"),
            "back": words("connection_back"),
            "error": words("error"),
            "warning": words("warnings"),
            "busy": words("failed_not_started"),
            "kind": words("upload_kind"),
            "size": words("upload_size"),
            "failed": words("upload_failed"),
            "failure": failure_html(FailedRun(kind=FailureKind.DISCONNECTED), words),
        },
    )


def songs_js(words: PageText) -> str:
    """Return the script of the songs."""
    return _script("songs", {name: words(name) for name in ("play", "pause", "sure_delete")})


def plan_js(words: PageText) -> str:
    """Return the script of the language model's plan."""
    return _script("plan", {"discarded": warnings_html((), words, own=(words("plan_discarded"),))})


def notify_js(words: PageText) -> str:
    """Return the script of the notification at the end of a run."""
    return _script("notify", {name: words(name) for name in ("title", "notify_refused")})


def _script(name: str, said: dict[str, object]) -> str:
    text = (Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8")
    _, begin, function = text.partition("() => {")
    return (begin + function.rstrip()).replace("WORDS", json.dumps(said), 1)
