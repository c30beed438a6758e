"""`python -m calibrate`: measure, estimate, and rebuild the table. Nothing here imports torch until a probe runs."""

import click

from acestep.cli import console
from acestep.version import version_option
from calibrate.commands.compare import compare_command
from calibrate.commands.estimate import estimate_command
from calibrate.commands.explain import explain_command
from calibrate.commands.merge import merge
from calibrate.commands.reality import reality
from calibrate.commands.run import run_command
from calibrate.commands.validate import validate_command
from calibrate.report.cli import render_command, report_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def cli() -> None:
    """Find out what fits on which card, and write the results to files."""


for command in (
    run_command,
    estimate_command,
    validate_command,
    merge,
    explain_command,
    render_command,
    compare_command,
    report_command,
    reality,
):
    cli.add_command(command)


def main() -> None:
    """The entry point of the `acestep-calibrate` script."""
    console.run_and_exit(cli)
