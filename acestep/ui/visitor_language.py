"""One page in several languages: each visitor gets that of the browser."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from gradio.context import Context

from acestep.locale_text import LANGUAGES
from acestep.serving.asgi import App, AsgiScope, Receive, Send, header
from acestep.ui.frame import Frame
from acestep.ui.sentences import SOURCE
from acestep.ui.words import PageText

_HEADER: Final = "accept-language"

_SPOKEN: ContextVar[str] = ContextVar("language of the visitor", default=SOURCE)

_IN_LANGUAGE: Final = ("title", "components", "dependencies")
"""The parts of a page's description that contain texts."""

_LONGEST: Final = 500
"""A longer header is none of a browser."""


def wanted_language(accepted: str) -> str:
    """Return the language of the page for a browser's ``Accept-Language`` (RFC 9110): the most wanted that there is."""
    wanted: dict[str, float] = {}
    for one in accepted[:_LONGEST].split(","):
        name, *parameters = (part.strip() for part in one.lower().split(";"))
        language = name.split("-")[0].strip()
        weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
        try:
            how_much = float(weights[0] if weights else 1)
        except ValueError:
            continue
        if language in LANGUAGES:
            wanted[language] = max(how_much, wanted.get(language, 0.0))
    best = max(wanted, key=lambda language: wanted[language], default=SOURCE)
    return best if wanted.get(best, 0.0) > 0 else SOURCE


def language_of_visitor() -> str:
    """Return the language for the visitor whose request is being answered."""
    return _SPOKEN.get()


class VisitorLanguage:
    """Notes the language of each request's browser."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page."""
        _SPOKEN.set(wanted_language(header(scope, _HEADER)))
        await self._app(scope, receive, send)


class ManyLanguages(Frame):
    """A page that is laid out once for each language, with the same numbers for its parts, and launched once."""

    def __init__(self, words: PageText) -> None:
        self._in_language: Mapping[str, Frame] = {}
        super().__init__(words)

    def speak(self, others: Mapping[str, Frame]) -> None:
        """Use these pages for the visitors with other languages."""
        self._in_language = others

    @property
    def config(self) -> Any:
        """The description of the page, in the language of the visitor who asks for it."""
        other = self._in_language.get(_SPOKEN.get())
        return self._config | {name: other.config[name] for name in _IN_LANGUAGE} if other else self._config

    @config.setter
    def config(self, value: Any) -> None:
        self._config = value

    async def process_api(
        self, block_fn: Any, inputs: list[Any], state: Any = None, request: Any = None, **how: Any
    ) -> Any:
        """Answer an event with the handler of the visitor's language."""
        number = block_fn if isinstance(block_fn, int) else block_fn._id  # noqa: SLF001 - by which the browser names it
        headers = getattr(request, "headers", None) or {}
        other = self._in_language.get(wanted_language(headers.get(_HEADER, "")))
        speaking = other.fns[number] if other else block_fn
        return await super().process_api(speaking, inputs, state, request, **how)


def in_every_language(build: Callable[[Frame, PageText], None]) -> ManyLanguages:
    """Return a page that `build` fills, once for each language."""
    first = Context.id
    page = ManyLanguages(PageText(SOURCE))
    build(page, PageText(SOURCE))
    after = Context.id
    others = {}
    for language in LANGUAGES:
        if language != SOURCE:
            # The parts of all pages have the same numbers, by which the browser names them.
            Context.id = first
            words = PageText(language)
            others[language] = Frame(words)
            build(others[language], words)
    if Context.id != after:
        raise RuntimeError("the page has other parts in another language")
    page.speak(others)
    return page
