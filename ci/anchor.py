"""The memory of every certified cell at the last release: `tiers/anchor.json` shows many small increases.

python -m ci.anchor writes it from the table and the records, as a step of a release.
"""

from pathlib import Path

import click
import msgspec

from acestep.cli import console
from acestep.errors import NotMeasuredError
from acestep.output_file import output_file
from acestep.strict_json import read_as
from acestep.tiers import load_tiers
from calibrate.files import pretty_json
from calibrate.record.measurement import load_measurement
from calibrate.table.policy import load_policy
from ci.cells import GateCell, judged_cells
from ci.checkout import CHECKOUT

ANCHOR = "anchor.json"


def load_anchor(folder: Path) -> tuple[GateCell, ...]:
    """Return the cells of the last release in a tiers folder, none if there is no file.

    Raises `InvalidInputError` for a damaged one.
    """
    path = folder / ANCHOR
    return read_as(path, tuple[GateCell, ...]) if path.exists() else ()


def write_anchor(folder: Path) -> int:
    """Write the cells of a tiers folder that the gate judges as those of a release, and return how many they are.

    Raises `NotMeasuredError`, and writes nothing, where no simulated record has the probe of a cell.
    """
    records = [load_measurement(path) for path in sorted((folder / "measurements").glob("*.json"))]
    table, policy = load_tiers(folder / "generated_tiers.json"), load_policy(folder / "policy.json")
    cells, missing = judged_cells(table, policy, records)
    if missing:
        named = "; ".join(finding.message.removesuffix(".") for finding in missing)
        raise NotMeasuredError(f"the anchor needs every cell: {named}; measure them with --device simulated")
    released = [msgspec.structs.replace(cell, released=True) for cell in cells]
    with output_file(folder / ANCHOR) as write:
        write(pretty_json(released))
    return len(released)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def anchor() -> None:
    """Write tiers/anchor.json, the memory of every certified cell, as a step of a release."""
    number = write_anchor(CHECKOUT / "tiers")
    console.notify(f"tiers/{ANCHOR} holds {number} cells.")


if __name__ == "__main__":
    console.run_and_exit(anchor)
