"""`python -m calibrate compare`: what changed between two records or two tables."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep.cli import console
from acestep.cli.options import json_option
from acestep.errors import UsageError

if TYPE_CHECKING:
    from calibrate.record.compare import Comparison


@click.command()
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the changes here.")
@json_option
def compare_command(before: Path, after: Path, csv: Path | None, as_json: bool) -> None:
    """Say what changed from A to B, two records or two tables, the worst first. Exit code 0 whatever it finds."""
    import msgspec

    from acestep.output_file import output_file
    from calibrate.files import csv_text
    from calibrate.record.compare import TableChange
    from calibrate.record.compare import compare as compared

    if csv is not None and csv.resolve() in (before.resolve(), after.resolve()):
        raise UsageError(f"--csv {csv} is one of the files compared; choose another path")
    with output_file(csv) as write:
        found = compared(before, after)
        if csv is not None:
            write(csv_text(TableChange.__struct_fields__, map(msgspec.to_builtins, found.changes)))
    console.answer(found, _print, as_json=as_json)


def _print(found: "Comparison") -> None:
    from calibrate.files import as_text
    from calibrate.screen import print_table

    title = f"{found.kind} {found.before} -> {found.after}"
    rows = [
        (
            change.way.value,
            change.place,
            change.field,
            _short(as_text(change.before)) if change.field else "",
            _short(as_text(change.after)) if change.field else "",
            f"{change.growth:+.1%}" if change.growth else "",
        )
        for change in found.changes
    ]
    if rows:
        columns = ("for the user", "where", "what", "before", "after", "growth")
        print_table(title, columns, rows, folding=("where", "what", "before", "after"))
    else:
        click.echo(f"{title}: no change.")
    if found.kind == "table" and rows and all(change.place == "table" for change in found.changes):
        click.echo("Every cell is the same.")


def _short(text: str) -> str:
    """The first 12 characters of each digest: enough to tell two files apart."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", text)
