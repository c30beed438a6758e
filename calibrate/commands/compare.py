"""`python -m calibrate compare`: what changed between two records or two tables."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep.cli import console
from acestep.errors import UsageError
from calibrate.extras import require_extra

if TYPE_CHECKING:
    from calibrate.record.compare import Comparison


@click.command()
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the changes here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare_command(before: Path, after: Path, csv: Path | None, as_json: bool) -> None:
    """Say what changed from A to B, two records or two tables, the worst first. Exit code 0 whatever it finds."""
    from acestep.output_file import output_file
    from calibrate.record.compare import compare as compared

    if csv is not None and csv.resolve() in (before.resolve(), after.resolve()):
        raise UsageError(f"--csv {csv} is one of the files compared; choose another path")
    if csv is not None:
        require_extra("pandas")
    with output_file(csv) as write:
        found = compared(before, after)
        if csv is not None:
            write(_as_csv(found))
    if as_json:
        console.print_json(found)
    else:
        _print(found)


def _print(found: "Comparison") -> None:
    from calibrate.screen import print_table

    title = f"{found.kind} {found.before} -> {found.after}"
    rows = [
        (
            change.way.value,
            change.place,
            change.field,
            _told(change.before) if change.field else "",
            _told(change.after) if change.field else "",
            f"{change.growth:+.1%}" if change.growth else "",
        )
        for change in found.changes
    ]
    if rows:
        columns = ("for the user", "where", "what", "before", "after", "growth")
        print_table(title, columns, rows, folding=("where", "what", "before", "after"))
    else:
        click.echo(f"{title}: no change.")


def _told(value: object) -> str:
    return "none" if value is None else str(value)


def _as_csv(found: "Comparison") -> str:
    """Return the changes as CSV; a text that a spreadsheet would run as a formula gets a leading apostrophe."""
    import msgspec
    import pandas as pd

    from calibrate.record.compare import TableChange

    rows = [msgspec.to_builtins(change) for change in found.changes]
    for row in rows:
        row.update({k: f"'{v}" for k, v in row.items() if isinstance(v, str) and v.startswith(("=", "+", "-", "@"))})
    frame = pd.DataFrame(rows, columns=list(TableChange.__struct_fields__), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))
