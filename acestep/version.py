"""The version of this release."""

from pathlib import Path
from typing import Any

import click

PACKAGE = "acestep-calibrated"


def version() -> str:
    """Return the installed release, or that of the checkout if none is installed."""
    # Slow to import, and few commands need it.
    import tomllib
    from importlib import metadata

    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        project = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def install_command(extra: str) -> str:
    """Return what to type for an extra of this package."""
    return f"pip install '{PACKAGE}[{extra}]'"


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> Any:
    if asked and not context.resilient_parsing:
        click.echo(f"{PACKAGE} {version()}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the release."
)
