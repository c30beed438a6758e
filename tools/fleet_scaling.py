"""How much faster campaigns on simulated cards are with more workers, and what a large fleet would take.

python -m tools.fleet_scaling [--workers 1 2] [--variants turbo base ...] [--limit-s 480]

For each number of workers a Ray node with so many cores is started on this machine's loopback, and the campaigns of all
variants run there at once, each as `python -m calibrate run --executor ray`. They are samples: small cards, no language
model, and not the VRAM guard's model. On two idle cores the command takes six minutes. --whole runs whole campaigns, of
which one variant takes as long. Then the campaigns of --sample kinds of card run for one size, to see whether their
probes cost as much.

Wall times need an idle machine with a core for each worker. CPU seconds hold on a busy one too: what is reckoned from
them is the best that could be, with every worker always at work.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from acestep.budgets import System
from acestep.errors import Exit, NotMeasuredError
from acestep.knobs import LM_MODELS, Variant
from acestep.units import MIB
from calibrate.campaign.boundary import SIMULATED
from calibrate.campaign.cost import cost_on
from calibrate.campaign.expected import as_recorded
from calibrate.campaign.run import CampaignScope, expected_tasks
from calibrate.record.measurement import RecordedCardKind, load_measurement
from calibrate.table.policy import load_policy
from tools.fleet_runs import FleetRun, run_at_once

RECORDS_FOLDER: Final = Path(__file__).parent.parent / "tiers" / "measurements"

SCALED_KIND: Final = "L4"
SCALED_SIZES_GIB: Final = (4.0, 5.0, 7.0, 8.0)
SAMPLED_KINDS: Final = ("H100", "RTX-3060")
SAMPLED_VARIANTS: Final = (Variant.TURBO, Variant.XL_TURBO)
SAMPLED_SIZE_GIB: Final = 8.0
SAMPLED_OPTIONS: Final = ("--os", System.WINDOWS.value, "--lm", "none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what was done, what was measured and what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variants", type=Variant, nargs="+", default=list(Variant))
    parser.add_argument("--tiers", type=float, nargs="+", default=SCALED_SIZES_GIB, help="card sizes of the samples")
    parser.add_argument("--whole", action="store_true", help="whole campaigns, with every language model")
    parser.add_argument("--sample", nargs="*", default=SAMPLED_KINDS, help="kinds of card to compare")
    parser.add_argument("--kinds", type=int, default=20)
    parser.add_argument("--fleet", type=int, default=32)
    parser.add_argument("--limit-s", type=float, default=480.0, help="end after so many seconds, with what there is")
    asked = parser.parse_args(arguments)
    # Whatever ends this command ends its node and its campaigns.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.INTERRUPTED))
    try:
        _measure(asked, time.monotonic() + asked.limit_s)
    except NotMeasuredError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit
    return Exit.OK


def _measure(asked: argparse.Namespace, until: float) -> None:
    sizes = load_policy().certified_sizes_gib if asked.whole else asked.tiers
    options = ("--tiers", *(f"{size:g}" for size in sizes), *(() if asked.whole else SAMPLED_OPTIONS))
    work = sum(campaign_cost(variant, sizes, whole=asked.whole)[1] for variant in asked.variants)
    _say(f"Campaigns of {', '.join(asked.variants)} on one kind of card at once, each with {' '.join(options)}.")
    runs = []
    for workers in sorted(set(asked.workers)):
        runs.append(_run(workers, [SCALED_KIND], asked.variants, options, until))
        _tell(runs[-1], work)
    one, most = runs[0], runs[-1]
    if most is not one:
        _say(
            f"{most.workers} workers instead of {one.workers}: {one.wall_s / most.wall_s:.2f} times as fast by wall"
            f" time, which counts on an idle machine only; by CPU seconds at most {reckoned_gain(one, most):.2f} times,"
            f" and {reckoned_gain(*_as_whole(asked.variants, work, one, most)):.2f} times in whole campaigns."
        )
    rate = (most.worker_cpu_s - most.starts_cpu_s) / work
    if asked.sample:
        sampled = [variant for variant in SAMPLED_VARIANTS if variant in asked.variants] or asked.variants[:1]
        options = ("--tiers", f"{SAMPLED_SIZE_GIB:g}", *SAMPLED_OPTIONS)
        _say(f"A sample of kinds: {', '.join(asked.sample)}, each with {', '.join(sampled)} and {' '.join(options)}.")
        other = _run(most.workers, asked.sample, sampled, options, until)
        each = sum(campaign_cost(variant, (SAMPLED_SIZE_GIB,), whole=False)[1] for variant in sampled)
        _tell(other, each * len(asked.sample))
    _tell_fleet(most, rate, asked.kinds, asked.fleet)


def _as_whole(variants: Sequence[Variant], work: float, *runs: FleetRun) -> list[FleetRun]:
    """The CPU seconds of runs, as they would be in whole campaigns; everything grows with the work but the starts."""
    whole = sum(campaign_cost(v, load_policy().certified_sizes_gib, whole=True)[1] for v in variants)
    return [grown(run, whole / work) for run in runs]


def grown(run: FleetRun, times: float) -> FleetRun:
    """Return what a run would take with so many times its work; its starts stay."""
    share = (run.starts_cpu_s + (run.worker_cpu_s - run.starts_cpu_s) * times) / run.worker_cpu_s
    return msgspec.structs.replace(
        run,
        workers_cpu_s=tuple(seconds * share for seconds in run.workers_cpu_s),
        driver_cpu_s=run.driver_cpu_s * times,
    )


def _tell_fleet(run: FleetRun, rate: float, kinds: int, fleet: int) -> None:
    """Say what whole campaigns of all variants would take, if a trace takes `rate` CPU seconds as in a run."""
    whole = [campaign_cost(variant, load_policy().certified_sizes_gib, whole=True) for variant in Variant]
    probes, cpu_s = kinds * sum(tasks for tasks, _ in whole), kinds * rate * sum(cost for _, cost in whole)
    _say(
        f"Not run: whole campaigns of {kinds} kinds of card and {len(Variant)} variants ask {probes} questions and take"
        f" {cpu_s / 3600:.1f} CPU hours. On {fleet} workers that is"
        f" {fleet_seconds(cpu_s, fleet, busy_share(run)) / 3600:.2f} h with workers that are at work as much as here,"
        f" and {fleet_seconds(cpu_s, fleet, 1.0) / 3600:.2f} h with workers that always are; {len(Variant)} drivers at"
        f" once need {run.driver_cpu_s / run.answers * probes / len(Variant) / 3600:.2f} h."
    )


def campaign_cost(variant: Variant, sizes_gib: Sequence[float], *, whole: bool) -> tuple[int, float]:
    """Return how many tasks a campaign on a simulated card has, and their cost in units of a new trace.

    `calibrate.campaign.cost` says what a unit is.
    """
    scope = CampaignScope(
        variant=variant,
        sizes_gib=tuple(sizes_gib),
        models=LM_MODELS if whole else (),
        system=System.LINUX if whole else System.WINDOWS,
    )
    record = RECORDS_FOLDER / f"simulated-{variant}{'' if whole else '-windows'}.json"
    tasks = expected_tasks(load_policy(), scope, SIMULATED, as_recorded([load_measurement(record)]))
    return len(tasks), cost_on(RecordedCardKind.SIMULATED).ahead(tasks)


def reckoned_gain(one: FleetRun, more: FleetRun) -> float:
    """Return how many times as fast more workers are if all are always at work, on as many cores as there are of them.

    Their own starts and the drivers take part of these cores.
    """
    return reckoned_seconds(one, more.workers) / reckoned_seconds(more, more.workers)


def reckoned_seconds(run: FleetRun, cores: int) -> float:
    """Return the least wall time of a run on so many cores."""
    return max(run.worker_cpu_s / run.workers, (run.worker_cpu_s + run.driver_cpu_s) / cores)


def busy_share(run: FleetRun) -> float:
    """Return the share of its time in which a worker was at work."""
    return run.worker_cpu_s / (run.wall_s * run.workers)


def fleet_seconds(cpu_s: float, fleet: int, busy: float) -> float:
    """Return what so many CPU seconds of workers take on a fleet whose workers are at work for a share of the time."""
    return cpu_s / (fleet * busy)


def _run(workers: int, kinds: Sequence[str], variants: Sequence[str], options: Sequence[str], until: float) -> FleetRun:
    with TemporaryDirectory(prefix="ray-") as place:
        return run_at_once(workers, kinds, variants, options, Path(place), until)


def _tell(run: FleetRun, work: float) -> None:
    probing_s, all_s = run.worker_cpu_s - run.starts_cpu_s, run.worker_cpu_s + run.driver_cpu_s
    each = ", ".join(f"{seconds:.0f}" for seconds in run.workers_cpu_s)
    _say(
        f"Workers: {run.workers}. {run.answers} probes in {run.wall_s:.0f} s; the workers were at work for"
        f" {busy_share(run):.0%} of it. They took {run.worker_cpu_s:.0f} CPU s in {len(run.workers_cpu_s)} processes"
        f" ({each}): {run.starts_cpu_s:.0f} before their first tasks, then {probing_s / work:.2f} for each trace."
    )
    _say(
        f"The drivers took {run.driver_cpu_s:.0f} CPU s, {run.driver_cpu_s / all_s:.1%} of all, for {2 * run.answers}"
        f" messages of {run.message_bytes / MIB:.2f} MiB, {run.message_bytes / max(run.answers, 1):.0f} bytes a probe."
    )


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
