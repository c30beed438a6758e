"""`python -m calibrate explain`: where a number of the table comes from."""

from pathlib import Path

import click

from acestep.budgets import System
from acestep.cli import console
from acestep.cli.options import json_option
from acestep.tiers import data_file
from calibrate.options import SYSTEM_OPTION


@click.command()
@click.argument("variant", metavar="VARIANT")
@click.argument("tier", metavar="TIER")
@click.argument("field", metavar="FIELD")
@click.option("--os", "system", **{**SYSTEM_OPTION, "help": "Whose promise is explained."})
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Another tiers folder.")
@json_option
def explain_command(variant: str, tier: str, field: str, system: System, folder: Path | None, as_json: bool) -> None:
    """Show where FIELD of TIER comes from: its record, cap and the probes that prove it.

    For example `explain turbo tier4 max_batch.with_lm`. Any field of generated_tiers.json has an answer, such as
    frontier.with_lm.4, lm_models, offload or boundaries.lm.4B. Exit code 3 if the table does not follow from the
    records.
    """
    from acestep.tiers import load_tiers
    from calibrate.explain.origin import explain as explained
    from calibrate.explain.sources import records_in
    from calibrate.explain.text import print_explanation
    from calibrate.table.policy import load_policy

    table = load_tiers(None if folder is None else folder / "generated_tiers.json")
    policy = load_policy(None if folder is None else folder / "policy.json")
    records = records_in(data_file("generated_tiers.json").parent if folder is None else folder)
    found = explained(table.on(system), policy, records, variant, tier, field)
    console.answer(found, print_explanation, as_json=as_json)
