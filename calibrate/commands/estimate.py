"""`python -m calibrate estimate`: one run on a simulated card."""

from typing import TYPE_CHECKING, Any

import click
from msgspec import UNSET
from msgspec.structs import replace

from acestep.budgets import System
from acestep.cli import console
from acestep.cli.lora_option import adapters_in, lora_option, lora_unfused_option
from acestep.cli.options import SIZE_GIB, json_option, knob_options, knobs_of, variant_option
from acestep.errors import UsageError
from acestep.hardware.card import SIMULATED_CAPABILITY, nameplate_gib
from acestep.request import Task
from acestep.units import gib_to_bytes
from calibrate.options import system_option

if TYPE_CHECKING:
    from acestep.adapters.choice import Adapter
    from calibrate.workload import Workload


@click.command()
@system_option
@click.option("--vram", type=SIZE_GIB, metavar="GIB", help="Under the budget of a card that reports this size.")
@click.option("--cap", type=SIZE_GIB, metavar="GIB", help="Under a plain cap on what the allocator may hold.")
@click.option("--smallest-cap", is_flag=True, help="Under the smallest cap that fits.")
@click.option(
    "--card",
    metavar="NAME|FILE",
    help='How long it takes on this card, such as "RTX 4060", and under its budget. A file of `acestep doctor --measure'
    " --json` names the card that it was measured on.",
)
@variant_option
@knob_options
@click.option("--batch", default=1, show_default=True, metavar="N", help="How many songs at once.")
@click.option("--duration", default=60.0, show_default=True, metavar="SECONDS", help="Length of each song.")
@click.option("--vae-chunk", type=click.IntRange(64), metavar="FRAMES", help="Decode in tiles of this many frames.")
@click.option("--task", type=click.Choice([task.value for task in Task]), help="A task on a song of the same length.")
@click.option("--reference-seconds", type=float, metavar="SECONDS", help="Length of a timbre reference.")
@lora_option
@lora_unfused_option
@json_option
def estimate_command(
    system: System,
    vram: float | None,
    cap: float | None,
    smallest_cap: bool,
    card: str | None,
    batch: int,
    duration: float,
    vae_chunk: int | None,
    task: str | None,
    reference_seconds: float | None,
    adapters: "tuple[Adapter | None, ...]",
    lora_unfused: bool,
    as_json: bool,
    **knobs: Any,
) -> None:
    """Simulate one run at full model size, stage by stage. Needs no graphics card; exit code 0 whatever it finds."""
    caps = (vram is not None) + (cap is not None) + smallest_cap
    if caps > 1 or (not caps and card is None):
        raise UsageError("give exactly one of --vram, --cap and --smallest-cap, or --card alone")
    used = adapters_in(adapters, unfused=lora_unfused)
    from acestep.tiers import load_tiers
    from calibrate.campaign.probers import simulation
    from calibrate.report import estimate as answer
    from calibrate.table.knobs import without_lm
    from calibrate.table.policy import budget_bytes, load_policy
    from calibrate.timing.cards import notes_on
    from calibrate.timing.measured_card import card_or_file
    from calibrate.timing.song import song_time

    speed = None if card is None else card_or_file(card)
    if speed is not None and not caps:
        vram = speed.vram_gib
    overrides = knobs_of(knobs)
    settled, remarks = answer.knobs_for(load_tiers().on(system), overrides, vram)
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
        cap_bytes: int | None = budget_bytes(nameplate_gib(gib_to_bytes(vram)), load_policy(), system)
    else:
        cap_bytes = None if cap is None else gib_to_bytes(cap)
    if speed is not None:
        remarks = (*remarks, *notes_on(speed))
    for remark in remarks:
        console.notify(remark)
    capability = speed.compute_capability if speed else SIMULATED_CAPABILITY
    prober = simulation(vae_chunk or 0, capability=capability, system=system, adapters=used)
    found = answer.estimate(prober, settled, workload, cap_bytes)
    if speed is not None and (time := song_time(speed, settled, workload, found.cap_bytes, prober)):
        found = replace(found, time=time)
    console.answer(found, answer.print_estimate, as_json=as_json)


def _workload(
    batch: int, duration_s: float, task: str | None, reference_seconds: float | None, *, with_lm: bool
) -> "Workload":
    """Return the workload with the longest prompt at this batch and length, which a request must allow."""
    from acestep.request import MAX_DURATION_S, MIN_DURATION_S, asked_request
    from calibrate.workload import Workload

    for seconds in (duration_s, duration_s if reference_seconds is None else reference_seconds):
        if not MIN_DURATION_S <= seconds <= MAX_DURATION_S:
            raise UsageError(f"songs and references last {MIN_DURATION_S:g} to {MAX_DURATION_S:g} s, got {seconds:g}")
    request = asked_request({"caption": "", "batch": batch, "duration_s": duration_s})
    return Workload(
        batch=request.batch,
        duration_s=request.duration_s,
        with_lm=with_lm,
        task=UNSET if task in (None, Task.TEXT2MUSIC) else Task(task),
        reference_seconds=UNSET if reference_seconds is None else reference_seconds,
    )
