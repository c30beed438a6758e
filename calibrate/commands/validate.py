"""`python -m calibrate validate`: checks whether measurement files may be merged."""

from pathlib import Path

import click
import msgspec

from acestep.cli import console
from acestep.cli.options import json_option
from acestep.errors import Exit


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@json_option
def validate_command(files: tuple[Path, ...], as_json: bool) -> int:
    """Check contributed measurement files: prints every rule that a file breaks, by its id. Reads nothing else.

    What a card says it measured is compared with the simulation, which takes a minute or more for each file. A record
    of the simulated card is compared where its code and libraries are those here, and must be equal.

    Exit code 0 when all of them may be merged, 3 when one may not.
    """
    from calibrate.campaign.physics import findings_of
    from calibrate.record.rules import RuleLevel

    findings = [finding for path in files for finding in findings_of(path, console.notify)]
    refused = any(finding.level is RuleLevel.ERROR for finding in findings)
    if as_json:
        verdict = "invalid" if refused else "ok"
        console.print_json({"verdict": verdict, "findings": [msgspec.to_builtins(finding) for finding in findings]})
    else:
        for finding in findings:
            click.echo(f"{finding.file}: {finding.level} {finding.id} at {finding.field}: {finding.message}")
    told = f"{len(findings)} findings" if findings else "no problem found"
    console.notify(f"{len(files)} files checked, {told}.")
    return Exit.INVALID if refused else Exit.OK
