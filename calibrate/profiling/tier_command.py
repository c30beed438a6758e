"""`--mode tier-test` from flags to exit code."""

from collections.abc import Callable, Mapping
from typing import Any

from acestep.cli import console
from acestep.errors import Exit, UsageError
from acestep.knobs import Variant
from acestep.output_file import output_file
from acestep.tiers import load_tiers
from calibrate.campaign import probers
from calibrate.files import pretty_json
from calibrate.options import require_simulated
from calibrate.profiling.example import LONGEST_PROMPT, PromptLength, load_example, prompt_of
from calibrate.profiling.tier_report import print_tier_test
from calibrate.profiling.tier_test import Options, most_trials, tier_test, trials
from calibrate.screen import probe_progress
from calibrate.table.policy import load_policy


def run_tier_test(flags: Mapping[str, Any]) -> int:
    """Probe the tiers, print or write what was found, and return 1 where one broke its promise."""
    with output_file(flags["benchmark_output"]) as write:
        return _probe(flags, write)


def _probe(flags: Mapping[str, Any], write: Callable[[str], None]) -> int:
    device, system, policy = _device(flags["device"]), flags["system"], load_policy()
    require_simulated(system, device)
    table = load_tiers().on(system)
    options = Options(
        with_lm=flags["tier_with_lm"],
        boundary=flags["tier_boundary"],
        batch_boundary=flags["tier_batch_boundary"],
        skip_compile=flags["tier_skip_compile"],
        prompt=LONGEST_PROMPT if flags["example"] is None else _prompt(flags["example"]),
    )
    tried = trials(table, policy, flags["tiers"] or policy.certified_sizes_gib, device, options, system)
    executor = probers.alone_on(device, system=system)
    if device == "simulated" and flags["device"] == "auto":
        console.notify("No CUDA card was found here.")
    console.notify(probers.introduction(executor, Variant.TURBO, system))
    with probe_progress(most_trials(tried, options)) as advance:
        found = tier_test(tried, executor.prober, options, advance)
        write(pretty_json(found))
    console.answer(found, lambda found: print_tier_test(found, tried, options), as_json=flags["as_json"])
    return Exit.REGRESSED if found.failed else Exit.OK


def _device(name: str) -> str:
    """Return the prober's device: a CUDA card, or the simulated one."""
    if name not in ("auto", "cuda", "simulated"):
        raise UsageError(f"--device is auto, cuda or simulated in mode tier-test, got {name}")
    if name == "auto":
        return "cuda" if probers.has_cuda_card() else "simulated"
    return name


def _prompt(name: str) -> PromptLength:
    prompt = prompt_of(load_example(name))
    console.notify(
        f"Probing with the prompt of {name}: at most {prompt.text_tokens} text and {prompt.lyric_tokens} lyric tokens"
        " instead of the longest ones. Each tier keeps its own song length and batch."
    )
    return prompt
