"""Templates, read once: Markdown unescaped, HTML with every value escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape


@cache
def template(name: str) -> Template:
    """Return a template by its file name; an HTML template escapes all values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # No string of a record has markup in it (`probes.base.SAFE_TEXT`), so Markdown needs no escaping.
        autoescape=select_autoescape(["html.j2"], default=False),
    )
    return environment.get_template(name)
