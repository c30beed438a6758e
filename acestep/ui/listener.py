"""Handlers in the form gradio calls: with their visit, with plain values, and with a sentence for every failure."""

import traceback
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr

from acestep.checkpoints.tokenizer import encodable
from acestep.errors import AceStepError
from acestep.serving.failures import failure_of
from acestep.ui.frame import refusal
from acestep.ui.page import Parts
from acestep.ui.studio import Studio
from acestep.ui.words import PageText

Changes = dict[Any, Any]
"""Components and their changes; components that are not named stay unchanged."""

Handler = Callable[..., Changes | None]
"""Called with its visit, then the values of its inputs as the browser sent them."""


class Listener:
    """Makes the arguments of gradio's event listeners."""

    def __init__(self, studio: Studio, words: PageText, parts: Parts) -> None:
        self._studio = studio
        self._words = words
        self._parts = parts

    def __call__(
        self,
        handler: Handler,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        after: Callable[[], None] = lambda: None,
        shown: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """Return a listener that answers with a handler's result or a sentence.

        `after` runs when no traceback of a failure is left. A sentence that is not `shown` as a passing message is for
        the API only: the page shows it in another place.
        """

        def answer(request: gr.Request, *values: Any) -> Any:
            try:
                # A lone surrogate, which JSON can escape and UTF-8 cannot encode, would break the answer.
                plain = [encodable(value) if isinstance(value, str) else value for value in values]
                session = self._studio.sessions.of(request.session_hash or "")
                files = [Path(value["path"]) for value in values if isinstance(value, dict) and "path" in value]
                self._studio.uploads.need(session.name, files)
                return handler(session, *plain)
            except AceStepError as error:
                problem = self._words.sentence(str(error))
            except Exception as error:
                # One user's failure must not stop the page for others; its operator finds the traceback in the
                # terminal.
                traceback.print_exc()
                problem = self._words(f"failed_{failure_of(error).kind}")
            after()
            raise refusal(problem, self._words("error"), shown=shown)

        # The names and defaults of the API's parameters.
        named = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in inputs]
        request = Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
        answer.__signature__ = Signature([request, *named])  # type: ignore[attr-defined]
        return {
            "fn": answer,
            "inputs": [self._parts[name] for name in inputs],
            "outputs": [self._parts[name] for name in outputs],
            "preprocess": False,
            "show_progress": "hidden",
            **more,
        }
