"""`python -m calibrate merge`: the table from the policy and every record."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep.cli import console
from acestep.errors import Exit, UsageError

if TYPE_CHECKING:
    from acestep.tiers import TierTable

TIERS_FOLDER = Path(__file__).parents[2] / "tiers"
"""The folder of records and the table: the `tiers` folder of a checkout."""


def _published(table: Path) -> "TierTable | None":
    """The table that will be replaced; None where none can be read."""
    from acestep.errors import InvalidInputError
    from acestep.tiers import load_tiers

    try:
        return load_tiers(table)
    except InvalidInputError:
        return None


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=TIERS_FOLDER, help="The tiers folder."
)
def merge(folder: Path) -> int:
    """Rebuild generated_tiers.json from policy.json and every record in measurements/.

    Exit code 1 if it promises less than the published table and waivers.json does not allow that. How long songs take
    is simulated again for the tiers whose records or plans have changed, which takes minutes.
    """
    from acestep.output_file import output_file
    from acestep.tiers import load_tiers
    from calibrate.campaign import probers
    from calibrate.campaign.physics import require_possible
    from calibrate.files import pretty_json
    from calibrate.record.measurement import load_measurement
    from calibrate.record.rules import require_sound
    from calibrate.table.merge import build_table, disagreements
    from calibrate.table.policy import load_policy
    from calibrate.table.targets import unwaived
    from calibrate.table.waivers import load_waivers
    from calibrate.timing.tier_times import with_times

    if not (folder / "policy.json").is_file():
        # An installed package contains the table, but neither the records nor a place to write a new one.
        raise UsageError(
            f"{folder} has no policy.json: merging needs a checkout, so run it in one or name its tiers with --folder"
        )
    # What the commands would refuse to read must not replace what they can read.
    with output_file(folder / "generated_tiers.json", check=load_tiers) as write:
        records = []
        before = _published(folder / "generated_tiers.json")
        # The records of that table were compared with the simulation then.
        merged = before.generated_from.records if before is not None else ()
        for path in sorted((folder / "measurements").glob("*.json")):
            records.append(record := load_measurement(path))
            # A file that says what could not have been measured must not promise anything to a musician.
            require_sound(path, record)
            if record.digest not in merged:
                require_possible(path, record, console.notify)
        policy = load_policy(folder / "policy.json")
        waivers = load_waivers(folder / "waivers.json")
        table = build_table(records, policy, waivers)
        table = with_times(table, before, probers.simulation())
        write(pretty_json(table))
    console.notify(f"{folder / 'generated_tiers.json'} rebuilt from {len(records)} records.")
    for sentence in disagreements(records, policy):
        console.notify(sentence)
    short = unwaived(table, waivers, datetime.datetime.now(tz=datetime.UTC).date())
    for cell in short:
        console.notify(
            f"{cell.tier} falls short of the published table: {cell.field} is {cell.generated}, not {cell.published}."
        )
    return Exit.REGRESSED if short else Exit.OK
