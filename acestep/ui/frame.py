"""gradio's page with our guard before it: nobody's input reaches gradio's own handling unseen."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from acestep.ui.uploads import file_of, problem_of
from acestep.ui.words import Words

HOUR_S, DAY_S = 3_600, 86_400
"""How often copies of songs and uploads are looked through, and how old they become; the songs themselves stay."""


class Frame(gr.Blocks):  # type: ignore[misc] # gradio is untyped here
    """A page that takes as many values as it has inputs, and only files that were uploaded to it."""

    def __init__(self, words: Words) -> None:
        self._words = words
        super().__init__(title=words("title"), analytics_enabled=False, delete_cache=(HOUR_S, DAY_S))

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False) -> Any:
        """The inputs of an event as its handler gets them; a sentence for those that cannot be."""
        wanted = block_fn.inputs
        if len(inputs) != len(wanted):
            raise self._refusal(self._words("missing_inputs", got=len(inputs), wanted=len(wanted)))
        files = [getattr(component, "data_model", None) is not None for component in wanted]
        index = problem_of(inputs, files, Path(get_upload_folder()))
        if index >= 0:
            name = wanted[index].elem_id or type(wanted[index]).__name__.lower()
            raise self._refusal(self._words("not_uploaded" if files[index] else "no_value", name=name))
        taken = [file_of(value) if is_file and value else value for value, is_file in zip(inputs, files, strict=True)]
        return await super().preprocess_data(block_fn, taken, state, explicit_call)

    def _refusal(self, sentence: str) -> Exception:
        # No handler runs that could say it on the page, so the message stays until it is closed.
        return refusal(sentence, self._words("error"), seconds=None)


MESSAGE_S = 10.0
"""How long a message on the page stays."""


def refusal(sentence: str, title: str, *, seconds: float | None = MESSAGE_S, shown: bool = True) -> Exception:
    """An error that the API answers with, and that the page shows as a message for some seconds (None: for good)."""
    error: Exception = gr.Error(
        escape(sentence, quote=False), title=title, duration=seconds, visible=shown, print_exception=False
    )
    return error
