"""`python -m calibrate`: measure, estimate, and rebuild the table. Nothing here imports torch until a probe runs."""

import click

from acestep import console
from acestep.version import version_option
from calibrate.commands.compare import compare
from calibrate.commands.estimate import estimate
from calibrate.commands.explain import explain
from calibrate.commands.merge import merge
from calibrate.commands.reality import reality
from calibrate.commands.run import run
from calibrate.commands.validate import validate
from calibrate.report.cli import render, report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def cli() -> None:
    """Find out what fits on which card, and write it down."""


for command in (run, estimate, validate, merge, explain, render, compare, report, reality):
    cli.add_command(command)


def main() -> None:
    """The entry point of the `acestep-calibrate` script."""
    console.run_and_exit(cli)
