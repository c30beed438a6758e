"""The page's look: system fonts and gradio's own colours, so that nothing is fetched from elsewhere."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import Font

STYLE = Path(__file__).parent / "style.css"


def theme() -> Any:
    """Calm, in light and dark."""
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
    """A value for light and dark alike."""
    return {name: value, f"{name}_dark": value}
