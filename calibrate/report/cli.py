"""`python -m calibrate render` and `report`: pages from the table and the records."""

from pathlib import Path

import click

from acestep.cli import console
from acestep.errors import Exit, UsageError
from acestep.tiers import data_file
from calibrate.extras import require_extra

_CHECKOUT = Path(__file__).parent.parent.parent
"""The folder that contains `tiers/` and `docs/`."""


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a page is not what it should be.")
def render_command(check: bool) -> int:
    """Rebuild the guide in every language, its plots and the explorer from the table and the records."""
    require_extra("matplotlib")
    from calibrate.report.render import read_sources, stale, write_files
    from calibrate.report.render import render as rendered

    files = rendered(read_sources(_CHECKOUT))
    wrong = stale(_CHECKOUT, files)
    if check:
        for path in wrong:
            console.notify(f"stale: {path}")
        console.notify(
            f"{len(wrong)} of {len(files)} files are stale; run `python -m calibrate render` and commit docs/."
            if wrong
            else f"{len(files)} files are what the table says."
        )
        return Exit.REGRESSED if wrong else Exit.OK
    write_files(_CHECKOUT, files)
    console.notify(f"{len(files)} files rendered, {len(wrong)} of them changed.")
    return Exit.OK


@click.command()
@click.option("--pr", is_flag=True, help="Print what changed in the table since --base, for a pull request.")
@click.option("--base", metavar="REF", help="The git commit, branch or tag to compare with.")
@click.option(
    "--tree",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="With --pr, the checkout with the changes; this one.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="RECORD", help="Make a page of one record."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="PAGE", help="Where to.")
def report_command(pr: bool, base: str | None, tree: Path | None, html: Path | None, output: Path | None) -> None:
    """Show what a pull request changes (--pr --base REF), or write one record as a page (--html RECORD -o PAGE)."""
    if pr == (html is not None):
        raise UsageError("give either --pr --base REF or --html RECORD -o PAGE")
    if html is not None:
        if output is None or base is not None or tree is not None:
            raise UsageError("a page needs a place, for example --html RECORD -o page.html, and no --base or --tree")
        _refuse_source(html, output)
        _write_page(html, output)
    else:
        if base is None or output is not None:
            raise UsageError("say what to compare with, for example --pr --base origin/main; the text goes to stdout")
        require_extra("matplotlib")
        from calibrate.report.pull_request import pull_request_text

        click.echo(pull_request_text(tree or _CHECKOUT, base), nl=False)


def _refuse_source(record: Path, output: Path) -> None:
    """Raise `UsageError` if a page would replace the record, or a source of tables and pages."""
    place = output.resolve()
    if place == record.resolve() or (output.exists() and record.exists() and output.samefile(record)):
        raise UsageError(f"-o {output} is the record itself; choose another path")
    for folder in (_CHECKOUT / "tiers", data_file("policy.json").parent):
        if place.is_relative_to(folder.resolve()):
            raise UsageError(f"-o {output} is in {folder}, which holds tables and records; choose a path outside it")


def _write_page(record: Path, output: Path) -> None:
    from acestep.output_file import output_file
    from calibrate.record.measurement import load_measurement
    from calibrate.report.page import record_page

    with output_file(output) as write:
        write(record_page(load_measurement(record)))
    console.notify(f"{output} shows {record}.")
