"""Templates, read once: Markdown as it is, HTML with every value escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape


@cache
def template(name: str) -> Template:
    """A template by its file name; one of HTML escapes what is put into it."""
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
