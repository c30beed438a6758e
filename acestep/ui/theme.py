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
    )
