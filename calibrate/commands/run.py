"""`python -m calibrate run`: find the limits of every tier and write a measurement file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep.budgets import System
from acestep.cli import console
from acestep.cli.options import variant_option
from acestep.errors import UsageError
from acestep.hardware.card import nameplate_gib
from acestep.knobs import LM_MODELS, Variant
from acestep.units import gib, gib_to_bytes
from calibrate.commands.campaign_options import cap_method_option, lm_option, models_asked, resume_option, tiers_option
from calibrate.commands.merge import TIERS_FOLDER
from calibrate.options import SpreadingCommand, require_simulated, system_option

if TYPE_CHECKING:
    from calibrate.campaign.expected import Expect
    from calibrate.campaign.run import CampaignResult, CampaignScope
    from calibrate.executors.base import Executor
    from calibrate.executors.questions import ProbeTask
    from calibrate.probes.base import CapMethod
    from calibrate.record.measurement import Measurement
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
@click.option("--dry-run", is_flag=True, help="Print what would be probed, and stop.")
@resume_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The measurement file."
)
def run_command(
    device: str,
    system: System,
    tiers: tuple[float, ...],
    lm: tuple[str | None, ...],
    variant: Variant,
    cap_method: str,
    dry_run: bool,
    resume: bool,
    output: Path | None,
) -> None:
    """Find the limits of every tier and write a measurement file.

    Each result is saved as soon as it is known, next to the file: an interrupted run continues with --resume.
    """
    if output is None and not dry_run:
        raise UsageError("say where the measurements go, for example -o tiers/measurements/NAME.json")
    require_simulated(system, device)
    from acestep.output_file import output_file
    from calibrate.campaign.probers import backends_of, executor_for, simulation
    from calibrate.campaign.run import CampaignScope
    from calibrate.commands.run_minutes import expectation, reckoned_minutes, simulated_records, timed_minutes
    from calibrate.probes.base import CapMethod
    from calibrate.table.policy import load_policy

    policy, simulated = load_policy(), device == "simulated"
    sizes = tuple(sorted({nameplate_gib(gib_to_bytes(size)) for size in tiers})) or policy.certified_sizes_gib
    models = models_asked(lm)
    scope = CampaignScope(
        variant=variant,
        sizes_gib=sizes,
        models=models,
        backends=backends_of(device, models),
        in_full=not simulated,
        system=system,
    )
    records = simulated_records(TIERS_FOLDER / "measurements", scope)
    tasks = _tell_plan(policy, scope, device, expectation(records))
    if output is None or dry_run:
        minutes = timed_minutes(tasks, simulation(system=system)) if simulated else reckoned_minutes(tasks, records)
        console.notify(f"It takes {minutes}.")
        return
    method = CapMethod.MODEL if simulated else CapMethod(cap_method)
    with output_file(output) as write, executor_for(device, method, system) as executor:
        _measure(executor, method, policy, scope, output, write, expectation(records), resume=resume)


def _measure(
    executor: "Executor",
    cap_method: "CapMethod",
    policy: "Policy",
    scope: "CampaignScope",
    output: Path,
    write: Callable[[str], None],
    expect: "Expect",
    *,
    resume: bool,
) -> None:
    from calibrate.campaign.journal import open_journal
    from calibrate.campaign.probers import identity_of, introduction, method_for
    from calibrate.campaign.run import run_campaign
    from calibrate.files import digest, pretty_json
    from calibrate.fingerprint import fingerprint

    started = time.monotonic()
    console.notify(introduction(executor, scope.variant, scope.system))
    card = f"{identity_of(executor.card)} {scope.system}"
    holds_for = fingerprint(card=card, cap_method=cap_method, budget=digest(policy.budget))
    with open_journal(output, holds_for, resume=resume) as journal:
        if resume:
            console.notify(f"{len(journal.entries)} answers were there already.")
        try:
            findings = run_campaign(
                executor,
                policy,
                scope,
                console.notify,
                method=method_for(executor.device),
                known=journal.entries,
                keep=journal.keep,
                expect=expect,
            )
        except KeyboardInterrupt:
            raise click.Abort(_interrupted(journal.count, journal.path)) from None
        write(pretty_json(_measurement(executor, cap_method, scope, findings)))
        journal.remove()
    console.notify(f"{len(findings.probes)} probes written to {output} after {time.monotonic() - started:.0f} s.")


def _interrupted(kept: int, journal: Path) -> str:
    if not kept:
        return "Interrupted before the first answer."
    answers = "1 answer is" if kept == 1 else f"{kept} answers are"
    return f"Interrupted; {answers} kept in {journal}. Go on with the same command and --resume."


def _measurement(
    executor: "Executor", cap_method: "CapMethod", scope: "CampaignScope", findings: "CampaignResult"
) -> "Measurement":
    from calibrate.campaign.probers import recorded_card
    from calibrate.record.measurement import Coefficient, measurement_of

    return measurement_of(
        recorded_card(executor, scope.system),
        findings.probes,
        findings.certificates,
        tuple(
            Coefficient(variant=scope.variant, name=name, value=value) for name, value in findings.memory_model.items()
        ),
        cap_method,
        executor.conditions,
    )


def _tell_plan(policy: "Policy", scope: "CampaignScope", device: str, expect: "Expect") -> "list[ProbeTask]":
    """Say what would be asked, and return it as far as it can be foretold."""
    from calibrate.campaign.boundary import Method
    from calibrate.campaign.probers import spurious_rate_of
    from calibrate.campaign.run import expected_tasks, least_probes, most_probes
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
    least, most = least_probes(policy, scope), most_probes(policy, scope, spurious_rate_of(device))
    tasks = expected_tasks(policy, scope, Method(spurious_rate=spurious_rate_of(device)), expect)
    console.notify(
        f"About {len(tasks)} probes, as far as can be foretold: {least} if everything fits, at most {most} in the worst"
        " case."
    )
    if left_out := [model for model in LM_MODELS if model not in scope.models]:
        console.notify(
            f"Without {', '.join(left_out)} this record covers no tier, so `merge` makes no table of it; it can be"
            " validated and compared."
        )
    return tasks
