"""`python -m calibrate reality`: the simulated card against a real or virtual one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from acestep.cli import console
from acestep.cli.options import json_option
from acestep.errors import Exit, NotMeasuredError, UsageError
from calibrate.commands.campaign_options import cap_method_option, lm_option, resume_option, tiers_option
from calibrate.options import SpreadingCommand

if TYPE_CHECKING:
    from calibrate.campaign.reality import Reality
    from calibrate.record.measurement import Measurement

SHOWN = 10
"""Under-estimates that are printed; the CSV has all pairs."""


@click.command(cls=SpreadingCommand)
@click.argument("record", metavar="RECORD", type=click.Path(path_type=Path))
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write every pair here.")
@click.option(
    "--ask",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Ask the card in this machine about a simulated RECORD, and write its answers here.",
)
@click.option("--anew", is_flag=True, help="Simulate with --ask, also where the record has the answers.")
@click.option("--compile", "compiled", is_flag=True, help="Ask with --ask for runs of compiled functions.")
@tiers_option
@lm_option
@cap_method_option
@resume_option
@json_option
def reality(
    record: Path,
    csv: Path | None,
    ask: Path | None,
    anew: bool,
    compiled: bool,
    tiers: tuple[float, ...],
    lm: tuple[str | None, ...],
    cap_method: str,
    resume: bool,
    as_json: bool,
) -> int:
    """Compare the simulated card with a card, real or virtual. RECORD is one of three things.

    A measured record: every probe of it is simulated, and the errors of the simulation are shown, under-estimates
    separately. Exit code 1 if fewer than 95 % of the smallest caps are within 5 % and at most 2 % under, 3 for a record
    that breaks a rule of measurement files.

    A simulated record, with --ask: a campaign would ask this machine's card everything anew, and take long. Instead
    only the two runs beside each boundary of the record are made on the card, and simulated if it has other kernels
    than the record's. All options but --csv go with it. Exit code 1 if any boundary differs.

    A folder of files that --ask wrote: sums them up. Exit code 1 if any boundary differs, 4 if there are no runs.
    """
    if ask is not None:
        from calibrate.commands.ask_card import ask_card

        _refuse(_given("csv"), "is only for a measured record without --ask")
        if ask.resolve() == record.resolve():
            raise UsageError(f"--ask {ask} is the record itself; choose another path")
        return ask_card(
            record, ask, tiers, lm, cap_method, anew=anew, compiled=compiled, resume=resume, as_json=as_json
        )
    _refuse(_given("anew", "compiled", "tiers", "lm", "cap_method", "resume"), "goes only with --ask")
    if record.is_dir():
        from calibrate.campaign.beside import read_runs
        from calibrate.commands.ask_card import tell_totals

        _refuse(_given("csv"), f"is only for a measured record; {record} is a folder")
        runs = read_runs(record)
        if not runs:
            raise NotMeasuredError(
                f"{record} holds no runs; expected a folder of files that"
                " `python -m calibrate reality RECORD --ask FILE` wrote"
            )
        return tell_totals(runs, as_json=as_json)
    return _errors_of(record, csv, as_json=as_json)


def _given(*names: str) -> list[str]:
    """The options of these names that were typed."""
    context = click.get_current_context()
    typed = (p for p in context.command.params if p.name in names)
    return [p.opts[0] for p in typed if context.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE]


def _refuse(options: list[str], why: str) -> None:
    if options:
        raise UsageError(f"{options[0]} {why}; leave it out")


def _errors_of(record: Path, csv: Path | None, *, as_json: bool) -> int:
    """The comparison of a measured record with its simulation."""
    from acestep.output_file import output_file
    from calibrate.campaign.probers import simulation_of
    from calibrate.campaign.reality import reality_of
    from calibrate.record.measurement import load_measurement
    from calibrate.record.rules import require_sound

    if csv is not None and csv.resolve() == record.resolve():
        raise UsageError(f"--csv {csv} is the record itself; choose another path")
    with output_file(csv) as write:
        measured = load_measurement(record)
        require_sound(record, measured, certifies=False)
        found = reality_of(measured, simulation_of(measured.card, measured.environment.torch))
        if csv is not None:
            write(_as_csv(found, measured))
    console.answer(found, lambda found: _print(found, measured), as_json=as_json)
    return Exit.OK if found.caps.reached else Exit.REGRESSED


def _print(found: "Reality", record: "Measurement") -> None:
    from acestep.units import mib
    from calibrate.campaign.reality import place_of
    from calibrate.screen import print_table

    columns = ("stage", "quantity", "compared", "mean", "worst", "farthest", "under", "mean under", "worst under")
    rows = [
        (
            errors.stage,
            errors.quantity.value,
            str(errors.compared),
            f"{errors.mean:.2%}",
            f"{errors.worst:+.2%}",
            mib(errors.farthest_bytes),
            str(errors.under),
            f"{errors.mean_under:+.2%}",
            f"{errors.worst_under:+.2%}",
        )
        for errors in found.errors
    ]
    print_table(f"simulated against {found.card}", columns, rows)
    under = [pair for pair in found.pairs if pair.error < 0][:SHOWN]
    if under:
        print_table(
            "the worst under-estimates",
            ("probe", "stage", "quantity", "simulated", "measured", "error"),
            [
                (
                    place_of(pair, record),
                    pair.stage,
                    pair.quantity.value,
                    mib(pair.simulated),
                    mib(pair.measured_from),
                    f"{pair.error:+.2%}",
                )
                for pair in under
            ],
            folding=("probe",),
        )
    verdicts, caps = found.verdicts, found.caps
    click.echo(
        f"{verdicts.alike} probes ended alike; {verdicts.only_simulated_fits} fitted in simulation only,"
        f" {verdicts.only_measured_fits} on the card only; {found.unanswered} cannot be simulated."
    )
    click.echo(f"{found.boundaries.equal} boundaries are equal and {found.boundaries.different} are not.")
    click.echo(f"{caps.near} smallest caps are near enough, {caps.far} are not, and the card leaves {caps.open} open.")


def _as_csv(found: "Reality", record: "Measurement") -> str:
    import msgspec

    from calibrate.campaign.reality import ComparedNumber, place_of
    from calibrate.files import csv_text

    rows = [{"place": place_of(pair, record), **msgspec.to_builtins(pair), "error": pair.error} for pair in found.pairs]
    return csv_text(("place", *ComparedNumber.__struct_fields__, "error"), rows)
