"""gradio's own words, such as those of its login and of a place for files, in the language of the page.

gradio chooses them by the language of the browser.
"""

from collections.abc import Callable
from typing import Any, Final

from gradio.routes import templates
from jinja2 import BaseLoader, Environment

_GRADIO_NAMES: Final = {"zh": "zh-CN"}
"""The languages that have another name in gradio."""

_BEGINNING: Final = "<head>"

_SCRIPT: Final = """<script>
document.documentElement.lang = {{ language_of_page()|toorjson }};
Object.defineProperty(navigator, "language", { value: {{ gradio_language()|toorjson }} });
</script>"""


class _Loader(BaseLoader):
    """Adds the script to gradio's pages."""

    def __init__(self, gradio: BaseLoader) -> None:
        self._gradio = gradio

    def get_source(self, environment: Environment, template: str) -> Any:
        source, path, is_fresh = self._gradio.get_source(environment, template)
        return source.replace(_BEGINNING, _BEGINNING + _SCRIPT, 1), path, is_fresh


def speak_as(language: Callable[[], str]) -> None:
    """Let gradio's own words be in the `language` of the visitor whose request is being answered."""
    env = templates.env
    env.globals["language_of_page"] = language
    env.globals["gradio_language"] = lambda: _GRADIO_NAMES.get(language(), language())
    if not isinstance(env.loader, _Loader):
        env.loader = _Loader(env.loader)
