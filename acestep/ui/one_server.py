"""Builds gradio's pages without the servers that gradio makes for each of them at every step.

Only the server that `launch` makes is used; the others take a second in all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradio.routes import App


@contextmanager
def without_servers() -> Iterator[None]:
    """Have gradio make no server inside the block, in which nothing is launched."""
    make = App.create_app
    App.create_app = staticmethod(_make_nothing)
    try:
        yield
    finally:
        App.create_app = staticmethod(make)


def _make_nothing(*_: Any, **__: Any) -> None:
    pass
