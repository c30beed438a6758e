"""The profiler's command line: the published flags of `profile_inference.py`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from acestep import console
from acestep.errors import Exit, UsageError
from acestep.knobs import Variant
from acestep.options import SIZE_GIB
from calibrate.options import Several, SpreadingCommand

if TYPE_CHECKING:
    from calibrate.profiling.example import Prompt

MODES = ("profile", "benchmark", "tier-test", "understand", "create_sample", "format_sample")


@click.command(cls=SpreadingCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mode", type=click.Choice(MODES), required=True, help="What to do; only tier-test exists so far.")
@click.option("--tiers", cls=Several, type=SIZE_GIB, metavar="GIB...", help="Card sizes; one per tier if not given.")
@click.option("--tier-with-lm", is_flag=True, help="Run tiers with their language model too.")
@click.option("--tier-skip-compile", is_flag=True, help="Do not compile on tiers without quantization (CUDA only).")
@click.option("--tier-boundary", is_flag=True, help="Find the smallest VRAM without INT8 and without offload.")
@click.option("--tier-batch-boundary", is_flag=True, help="Find the largest batch of each tier.")
@click.option("--example", metavar="NAME", help="Probe with the prompt of examples/text2music/NAME.json.")
@click.option(
    "--benchmark-output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the JSON here."
)
def cli(
    mode: str,
    tiers: tuple[float, ...],
    tier_with_lm: bool,
    tier_skip_compile: bool,
    tier_boundary: bool,
    tier_batch_boundary: bool,
    example: str | None,
    benchmark_output: Path | None,
) -> int:
    """Profile ACE-Step 1.5: probe every tier at its limits, on the card in this machine or on a simulated one."""
    if mode != "tier-test":
        raise UsageError(f"mode {mode} does not exist yet; only --mode tier-test does")
    from acestep.tiers import load_tiers
    from calibrate.files import output_file, pretty_json
    from calibrate.policy import load_policy
    from calibrate.probers import has_cuda_card, introduction, prober_for
    from calibrate.profiling.example import LONGEST_PROMPT
    from calibrate.profiling.tier_report import print_tier_test
    from calibrate.profiling.tier_test import Options, most_probes, tier_test, trials
    from calibrate.screen import progress

    policy = load_policy()
    options = Options(
        with_lm=tier_with_lm,
        boundary=tier_boundary,
        batch_boundary=tier_batch_boundary,
        skip_compile=tier_skip_compile,
        prompt=LONGEST_PROMPT if example is None else _prompt(example),
    )
    device = "cuda" if has_cuda_card() else "simulated"
    tried = trials(load_tiers(), policy, tiers or policy.certified_sizes_gib, device, options)
    prober = prober_for(device)
    if device == "simulated":
        console.notify("No CUDA card was found here.")
    console.notify(introduction(prober, Variant.TURBO))
    with output_file(benchmark_output) as write, progress(most_probes(tried, options)) as advance:
        found = tier_test(tried, prober, options, advance)
        write(pretty_json(found))
    print_tier_test(found, tried, options)
    return Exit.REGRESSED if found.failed else Exit.OK


def _prompt(name: str) -> "Prompt":
    from calibrate.profiling.example import load_example, prompt_of

    prompt = prompt_of(load_example(name))
    console.notify(
        f"Probing with the prompt of {name}: at most {prompt.text_tokens} text and {prompt.lyric_tokens} lyric tokens"
        " instead of the longest ones. Each tier keeps its own song length and batch."
    )
    return prompt


def main() -> None:
    """The entry point of `profile_inference.py`."""
    console.run_and_exit(cli)
