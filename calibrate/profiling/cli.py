"""The profiler's command line: the published flags of `profile_inference.py`. Imports no torch before a mode runs."""

from pathlib import Path
from typing import Any

import click

from acestep.cli import console
from acestep.errors import UsageError
from calibrate.options import SpreadingCommand
from calibrate.profiling.flags import SONG_FLAGS, Mode, check_flags, mode_flags


@click.command(cls=SpreadingCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), required=True, help="What to do.")
@mode_flags
def cli(mode: str, **flags: Any) -> int:
    """Profile ACE-Step 1.5 on the card in this machine, or probe its tiers, on a simulated card if there is none.

    profile: where the time of one request goes. benchmark: many lengths, batches and steps. tier-test: does every tier
    keep its promise. understand, create_sample, format_sample: the language model by itself.
    """
    chosen = Mode(mode)
    check_flags(click.get_current_context(), chosen)
    _check_output(chosen, flags["benchmark_output"])
    if chosen is Mode.TIER_TEST:
        from calibrate.profiling.tier_command import run_tier_test

        return run_tier_test(flags)
    if flags["device"] == "simulated":
        raise UsageError(
            f"--device simulated is for tier-test: on a simulated card nothing takes time, and {mode} times"
        )

    from calibrate.profiling import run_command

    if chosen in SONG_FLAGS:
        return run_command.run_profile(flags) if chosen is Mode.PROFILE else run_command.run_benchmark(flags)
    return run_command.run_words(chosen, flags)


def _check_output(mode: Mode, target: Path | None) -> None:
    """Only a benchmark has rows of one kind; the other documents are trees, which CSV cannot hold."""
    if target is None:
        return
    ending = target.suffix.lower()
    if mode is Mode.BENCHMARK and ending not in (".json", ".csv"):
        raise UsageError(f"--benchmark-output writes .json or .csv in mode {mode}, got {str(target)!r}")
    if mode is not Mode.BENCHMARK and ending == ".csv":
        raise UsageError(f"--benchmark-output writes JSON in mode {mode}, got {str(target)!r}")


def main() -> None:
    """The entry point of `profile_inference.py`."""
    console.run_and_exit(cli)
