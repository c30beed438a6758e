"""Which release this is."""

from pathlib import Path
from typing import Any

import click

PACKAGE = "acestep-calibrated"


def version() -> str:
    """The release that is installed, or that of the checkout where none is."""
    # Slow to import, and few commands ask.
    import tomllib
    from importlib import metadata

    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        project = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> Any:
    if asked and not context.resilient_parsing:
        click.echo(f"{PACKAGE} {version()}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the release."
)
