"""`python -m calibrate`: measure, estimate, and rebuild the table. Nothing here imports torch until a probe runs."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import UNSET

from acestep import console
from acestep.errors import Exit, UsageError
from acestep.hardware import nameplate_gib
from acestep.options import SIZE_GIB, knob_options, knobs_of
from acestep.request import Task
from acestep.units import gib_to_bytes
from calibrate.checking import validate
from calibrate.comparing import compare
from calibrate.facing import reality
from calibrate.report.cli import render, report
from calibrate.running import run, variant_option

if TYPE_CHECKING:
    from calibrate.workload import Workload

FOLDER = Path(__file__).parent.parent / "tiers"
"""Where records are kept and the table is written: the `tiers` folder of a checkout."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Find out what fits on which card, and write it down."""


@cli.command()
@click.option("--vram", type=SIZE_GIB, metavar="GIB", help="Under the budget of a card that reports this size.")
@click.option("--cap", type=SIZE_GIB, metavar="GIB", help="Under a plain cap on what the allocator may hold.")
@click.option("--smallest-cap", is_flag=True, help="Under the smallest cap that fits.")
@variant_option
@knob_options
@click.option("--batch", default=1, show_default=True, metavar="N", help="How many songs at once.")
@click.option("--duration", default=60.0, show_default=True, metavar="SECONDS", help="Length of each song.")
@click.option("--vae-chunk", type=click.IntRange(64), metavar="FRAMES", help="Decode in tiles of this many frames.")
@click.option("--task", type=click.Choice([task.value for task in Task]), help="A task on a song of the same length.")
@click.option("--reference-seconds", type=float, metavar="SECONDS", help="Length of a timbre reference.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def estimate(
    vram: float | None,
    cap: float | None,
    smallest_cap: bool,
    batch: int,
    duration: float,
    vae_chunk: int | None,
    task: str | None,
    reference_seconds: float | None,
    as_json: bool,
    **knobs: Any,
) -> None:
    """Simulate one run at full model size, stage by stage. Needs no graphics card; exit code 0 whatever it finds."""
    if (vram is not None) + (cap is not None) + smallest_cap != 1:
        raise UsageError("give exactly one of --vram, --cap and --smallest-cap")
    from acestep.tiers import load_tiers
    from calibrate import estimate as answer
    from calibrate.knobs import without_lm
    from calibrate.policy import budget_bytes, load_policy
    from calibrate.probers import prober_for

    overrides = knobs_of(knobs)
    settled, remarks = answer.knobs_for(load_tiers(), overrides, vram)
    if task not in (None, Task.TEXT2MUSIC) and settled.lm is not None:
        if overrides.lm is not UNSET:
            remarks = (
                *remarks,
                f"To {task} is to work on a song that exists, without planning: no language model runs.",
            )
        settled = without_lm(settled)
    workload = _workload(batch, duration, task, reference_seconds, with_lm=settled.lm is not None)
    if overrides.compile is True:
        remarks = (*remarks, "A simulated card compiles nothing; the model runs eagerly.")
    if vram is not None:
        cap_bytes: int | None = budget_bytes(nameplate_gib(gib_to_bytes(vram)), load_policy())
    else:
        cap_bytes = None if cap is None else gib_to_bytes(cap)
    for remark in remarks:
        console.notify(remark)
    found = answer.estimate(prober_for("simulated", vae_chunk or 0), settled, workload, cap_bytes)
    if as_json:
        console.print_json(found)
    else:
        answer.print_estimate(found)


@cli.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, help="The tiers folder.")
def merge(folder: Path) -> int:
    """Rebuild generated_tiers.json from policy.json and every record in measurements/.

    Exit code 1 where it promises less than the published table and waivers.json does not say why.
    """
    from calibrate.files import output_file, pretty_json
    from calibrate.policy import load_policy
    from calibrate.record import load_measurement
    from calibrate.rules import require_sound
    from calibrate.table import build_table, disagreements
    from calibrate.targets import unwaived
    from calibrate.waivers import load_waivers

    if not (folder / "policy.json").is_file():
        # An installed package brings its table along, but neither the records nor a place to write a new one.
        raise UsageError(
            f"{folder} has no policy.json: merging needs a checkout, so run it in one or name its tiers with --folder"
        )
    records = []
    for path in sorted((folder / "measurements").glob("*.json")):
        records.append(record := load_measurement(path))
        # Nobody promises a musician what a file says that could not have been measured.
        require_sound(path, record)
    policy = load_policy(folder / "policy.json")
    table = build_table(records, policy)
    waivers = load_waivers(folder / "waivers.json")
    with output_file(folder / "generated_tiers.json") as write:
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


def _workload(
    batch: int, duration_s: float, task: str | None, reference_seconds: float | None, *, with_lm: bool
) -> "Workload":
    """The longest prompt at this batch and length, which must be ones that a request may have."""
    from acestep.request import MAX_DURATION_S, MIN_DURATION_S, Request
    from calibrate.workload import Workload

    for seconds in (duration_s, duration_s if reference_seconds is None else reference_seconds):
        if not MIN_DURATION_S <= seconds <= MAX_DURATION_S:
            raise UsageError(f"songs and references last {MIN_DURATION_S:g} to {MAX_DURATION_S:g} s, got {seconds:g}")
    try:
        request = Request(caption="", batch=batch, duration_s=duration_s)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Workload(
        batch=request.batch,
        duration_s=request.duration_s,
        with_lm=with_lm,
        task=UNSET if task in (None, Task.TEXT2MUSIC) else Task(task),
        reference_seconds=UNSET if reference_seconds is None else reference_seconds,
    )


cli.add_command(run)
cli.add_command(render)
cli.add_command(report)
cli.add_command(validate)
cli.add_command(compare)
cli.add_command(reality)


def main() -> None:
    """The entry point of the `acestep-calibrate` script."""
    console.run_and_exit(cli)
