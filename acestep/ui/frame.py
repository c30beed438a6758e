"""gradio's page with our own check of all input before gradio processes it."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import Font
from gradio.utils import get_upload_folder

from acestep.audio.read import said_seconds
from acestep.request import MIN_DURATION_S
from acestep.serving.bounds import DAY_S, HOUR_S
from acestep.ui.words import PageText


def problem_of(values: Sequence[Any], files: Sequence[bool], folder: Path) -> int | None:
    """Return the index of the first value that is refused, None if there is none; `files` says which may be a file.

    gradio reads anything in its input that looks like a file, and even fetches it from an address.
    """
    for index, (value, may_be_file) in enumerate(zip(values, files, strict=False)):
        if may_be_file:
            if value is not None and not _uploaded(value, folder):
                return index
        elif isinstance(value, dict | list):
            return index
    return None


def _uploaded(value: Any, folder: Path) -> bool:
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    try:
        real = Path(path).resolve()
        return real.is_relative_to(folder.resolve()) and real.is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def file_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return only what gradio needs about an uploaded file, without anything else that the browser sent."""
    return {"path": value["path"], "meta": {"_type": "gradio.FileData"}}


def seconds_of(path: str | None) -> float:
    """Return the length of an uploaded file according to its header, 0 for a file that cannot be read."""
    seconds = said_seconds(Path(path)) if path else 0.0
    return max(seconds, MIN_DURATION_S) if seconds else 0.0


class Frame(gr.Blocks):  # type: ignore[misc] # gradio is untyped here
    """A page that takes exactly as many values as it has inputs, and only files that were uploaded to it."""

    def __init__(self, words: PageText) -> None:
        self._words = words
        # Copies of songs and uploads are deleted; songs stay.
        super().__init__(title=words("title"), analytics_enabled=False, delete_cache=(HOUR_S, DAY_S))

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False) -> Any:
        """Return the inputs of an event for its handler; raise an error with a sentence for input that is refused."""
        wanted = block_fn.inputs
        if len(inputs) != len(wanted):
            raise self._refusal(self._words("missing_inputs", got=len(inputs), wanted=len(wanted)))
        files = [getattr(component, "data_model", None) is not None for component in wanted]
        index = problem_of(inputs, files, Path(get_upload_folder()))
        if index is not None:
            name = wanted[index].elem_id or type(wanted[index]).__name__.lower()
            raise self._refusal(self._words("not_uploaded" if files[index] else "no_value", name=name))
        taken = [file_of(value) if is_file and value else value for value, is_file in zip(inputs, files, strict=True)]
        return await super().preprocess_data(block_fn, taken, state, explicit_call)

    def _refusal(self, sentence: str) -> Exception:
        # No handler runs that could show it on the page, so the message stays until it is closed.
        return refusal(sentence, self._words("error"), seconds=None)


MESSAGE_S = 10.0
"""Seconds that a message stays on the page."""


def refusal(sentence: str, title: str, *, seconds: float | None = MESSAGE_S, shown: bool = True) -> Exception:
    """Return an error that is the API's answer, and that the page shows for some seconds (None: until closed)."""
    error: Exception = gr.Error(
        escape(sentence, quote=False), title=title, duration=seconds, visible=shown, print_exception=False
    )
    return error


STYLE = Path(__file__).parent / "style.css"


def theme() -> Any:
    """Return the theme, for light and dark mode."""
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=tuple(map(Font, ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"))),
        font_mono=tuple(map(Font, ("ui-monospace", "Consolas", "monospace"))),
    ).set(
        **_both("block_label_background_fill", "transparent"),
        **_both("block_label_text_color", "*body_text_color"),
        **_both("block_title_background_fill", "transparent"),
        **_both("block_title_text_color", "*body_text_color"),
        **_both("button_primary_background_fill", "*primary_700"),
        **_both("button_primary_background_fill_hover", "*primary_800"),
        **_both("button_primary_text_color", "white"),
        # Also the colour of a button that cannot be pressed.
        button_secondary_background_fill_hover_dark="*neutral_500",
        button_cancel_background_fill_hover_dark="*neutral_500",
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        **_both("block_border_width", "1px"),
        block_title_text_weight="600",
        block_title_padding="0",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        checkbox_border_width="1px",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
    )


def _both(name: str, value: str) -> dict[str, str]:
    """Return a value for both light and dark mode."""
    return {name: value, f"{name}_dark": value}
