"""`python -m calibrate run`: find the limits of every tier and write a measurement file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep.budgets import System
from acestep.cli import console
from acestep.cli.options import variant_option
from acestep.errors import Exit, UsageError
from acestep.hardware.card import nameplate_gib
from acestep.knobs import LM_MODELS, Backend, Variant
from acestep.units import gib, gib_to_bytes
from calibrate.commands.campaign_options import cap_method_option, lm_option, models_asked, resume_option, tiers_option
from calibrate.commands.merge import TIERS_FOLDER
from calibrate.commands.run_fleet import (
    address_option,
    card_option,
    cards_option,
    executor_option,
    fleet_asked,
    lines_option,
    run_fleet,
)
from calibrate.options import SpreadingCommand, require_simulated, system_option

if TYPE_CHECKING:
    from calibrate.campaign.expected import Expect
    from calibrate.campaign.recording import Campaigning
    from calibrate.campaign.run import CampaignScope
    from calibrate.executors.base import Executor
    from calibrate.executors.questions import ProbeTask
    from calibrate.table.policy import Policy


@click.command(cls=SpreadingCommand)
@click.option(
    "--device",
    type=click.Choice(("cuda", "simulated")),
    default="simulated",
    show_default=True,
    help="The card to probe.",
)
@system_option
@tiers_option
@lm_option
@variant_option
@cap_method_option
@executor_option
@address_option
@cards_option
@card_option
@click.option("--dry-run", is_flag=True, help="Print what would be probed, and stop.")
@resume_option
@lines_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The measurement file; with --cards the folder of all of them.",
)
def run_command(
    device: str,
    system: System,
    tiers: tuple[float, ...],
    lm: tuple[str | None, ...],
    variant: Variant,
    cap_method: str,
    executor: str,
    address: str | None,
    cards: str | None,
    card: str | None,
    dry_run: bool,
    resume: bool,
    as_lines: bool,
    output: Path | None,
) -> int:
    """Find the limits of every tier and write a measurement file.

    Each result is saved as soon as it is known, next to the file: an interrupted run continues with --resume.
    """
    if output is None and not dry_run:
        raise UsageError("say where the measurements go, for example -o tiers/measurements/NAME.json")
    require_simulated(system, device)
    fleet = fleet_asked(device, executor, address, cards, card, as_lines=as_lines)
    from acestep.output_file import output_file
    from calibrate.campaign.probers import backends_of, executor_for, simulation
    from calibrate.campaign.recording import Campaigning, InterruptedCampaignError
    from calibrate.campaign.run import CampaignScope
    from calibrate.commands.run_minutes import expectation, reckoned_minutes, simulated_records, timed_minutes
    from calibrate.executors.cards import simulated_as
    from calibrate.probes.base import SIMULATED_CARD, CapMethod
    from calibrate.table.policy import load_policy

    imagined = SIMULATED_CARD if card is None else simulated_as(card)
    policy, simulated = load_policy(), device == "simulated"
    sizes = tuple(sorted({nameplate_gib(gib_to_bytes(size)) for size in tiers})) or policy.certified_sizes_gib
    models = models_asked(lm)
    scope = CampaignScope(
        variant=variant,
        sizes_gib=sizes,
        models=models,
        # Weights for vLLM would have to be on every machine of a cluster.
        backends=backends_of(device, models) if fleet is None or fleet.is_here or simulated else (Backend.PT,),
        in_full=not simulated,
        system=system,
    )
    records = simulated_records(TIERS_FOLDER / "measurements", scope)
    expect = expectation(records)
    tasks = _tell_plan(policy, scope, device, expect)
    method = CapMethod.MODEL if simulated else CapMethod(cap_method)
    campaigning = Campaigning(policy=policy, scope=scope, cap_method=method, resume=resume, expect=expect)
    if fleet is not None:
        return run_fleet(fleet, device, campaigning, None if dry_run else output)
    if output is None or dry_run:
        minutes = timed_minutes(tasks, simulation(system=system)) if simulated else reckoned_minutes(tasks, records)
        console.notify(f"It takes {minutes}.")
        return Exit.OK
    try:
        with output_file(output) as write, executor_for(device, method, system, imagined) as by:
            _measure(by, campaigning, output, write)
    except (InterruptedCampaignError, KeyboardInterrupt) as interruption:
        raise click.Abort(_what_is_kept(interruption)) from None
    return Exit.OK


def _what_is_kept(interruption: BaseException | None) -> str:
    """Return what an interrupted campaign keeps; a second Ctrl-C, while its processes are ended, must not hide it."""
    from calibrate.campaign.recording import InterruptedCampaignError

    while interruption is not None and not isinstance(interruption, InterruptedCampaignError):
        interruption = interruption.__context__
    return str(interruption or "")


def _measure(executor: "Executor", campaigning: "Campaigning", output: Path, write: Callable[[str], None]) -> None:
    from calibrate.campaign.probers import introduction
    from calibrate.campaign.recording import run_and_record

    started = time.monotonic()
    console.notify(introduction(executor, campaigning.scope.variant, campaigning.scope.system))
    findings = run_and_record(executor, campaigning, output, write, console.notify)
    console.notify(f"{len(findings.probes)} probes written to {output} after {time.monotonic() - started:.0f} s.")


def _tell_plan(policy: "Policy", scope: "CampaignScope", device: str, expect: "Expect") -> "list[ProbeTask]":
    """Say what would be asked, and return it as far as it can be foretold."""
    from calibrate.campaign.boundary import Method
    from calibrate.campaign.probers import spurious_rate_of
    from calibrate.campaign.run import expected_tasks
    from calibrate.table.policy import budget_bytes

    budgets = ", ".join(
        f"{size:g} GiB (budget {gib(budget_bytes(size, policy, scope.system))})" for size in scope.sizes_gib
    )
    rungs = ", ".join(f"{rung.offload} {rung.quantization or 'unquantized'}" for rung in policy.preference)
    models = f"{', '.join(scope.models)} on {' and '.join(scope.backends)}" if scope.models else "none"
    lengths, batches = policy.durations_s.values, ", ".join(map(str, policy.batches.values))
    console.notify(f"{scope.variant} on a {device} card: {budgets}.")
    console.notify(
        f"Songs of {lengths[0]} to {lengths[-1]} s in batches of {batches}; language models: {models}; offload and"
        f" weights, until the longest song fits: {rungs}."
    )
    tasks = expected_tasks(policy, scope, Method(spurious_rate=spurious_rate_of(device)), expect)
    console.notify(f"About {len(tasks)} probes, as far as can be foretold.")
    if left_out := [model for model in LM_MODELS if model not in scope.models]:
        console.notify(
            f"Without {', '.join(left_out)} this record covers no tier, so `merge` makes no table of it; it can be"
            " validated and compared."
        )
    return tasks
