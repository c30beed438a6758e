"""`profile_inference.py --mode tier-test`: its flags, exit codes and document, on a card that is a formula."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep import tiers as tiers_module
from acestep.errors import Exit
from acestep.knobs import Knobs
from acestep.units import GIB
from calibrate.campaign import probers
from calibrate.executors.alone import SimulationAlone
from calibrate.options import Several, SpreadingCommand, spread
from calibrate.profiling.cli import cli as profiler
from calibrate.table.merge import build_table
from calibrate.workload import Workload
from tests import formula_card
from tests.fakes import AnalyticProber, measured
from tests.formula_card import POLICY, Run


class Forgetful(AnalyticProber):
    """On this card no language model fits."""

    def think_bytes(self, knobs: Knobs, workload: Workload, songs: int) -> int:
        return 99 * GIB if workload.with_lm else 0


WITHOUT_LM = build_table([measured(Forgetful())], POLICY)

no_card, command = formula_card.no_card, formula_card.command


def test_tier_test_writes_the_document_and_prints_a_row_per_tier_and_config(command: Run, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    code, out, err = command(
        profiler, "--mode", "tier-test", "--tier-boundary", "--tier-batch-boundary", "--benchmark-output", target
    )
    assert code == Exit.OK, err
    found = json.loads(target.read_text())
    assert "No CUDA card was found" in err
    assert err.count("x 600 s under") == err.count("fits") + err.count(": oom")
    for row in found["results"]:
        assert any(row["tier"] in line and ", ".join(row["configs"]) in line for line in out.splitlines())
    assert "not asked for" in out
    assert "Smallest VRAM" in out
    assert "Largest batch" in out
    assert "\x1b" not in out


def test_several_sizes_may_follow_tiers_once(command: Run, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    flags = ("--tiers", 6, 8, 16, "--mode", "tier-test", "--benchmark-output", target)
    assert command(profiler, *flags)[0] == Exit.OK
    assert [row["vram_gib"] for row in json.loads(target.read_text())["results"]] == [6, 8, 16]


def test_language_models_have_rows_of_their_own_and_tiers_without_one_say_that_they_are_skipped(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = command(profiler, "--mode", "tier-test", "--tier-with-lm", "--tiers", 8)
    assert "0.6B with vllm" in out
    monkeypatch.setattr(tiers_module, "_table_in_force", lambda: WITHOUT_LM)
    _, out, _ = command(profiler, "--mode", "tier-test", "--tier-with-lm", "--tiers", 8)
    assert "skipped: no LM" in out


def test_a_broken_promise_is_exit_code_one(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(AnalyticProber):
        def need(self, *asked: Any) -> int:
            return super().need(*asked) + 30 * GIB

    monkeypatch.setattr(probers, "alone_on", lambda _, **__: SimulationAlone(Full()))
    code, _, err = command(profiler, "--mode", "tier-test", "--tiers", 24)
    assert code == Exit.REGRESSED
    assert "FAILED unlimited at 24 GiB" in err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--mode", "nonsense"),
        ("--mode", "profile", "--tiers", "8"),
        ("--mode", "tier-test", "--tiers"),
        ("--mode", "tier-test", "--tiers", "8", "-4"),
        ("--mode", "tier-test", "--tiers", "8", "big"),
        ("--mode", "tier-test", "--example", "no-such-example"),
        ("--mode", "tier-test", "stray"),
    ],
)
def test_invalid_profile_options_are_a_usage_error(command: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = command(profiler, *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert "Traceback" not in err


def test_the_published_flags_exist() -> None:
    names = {name for param in profiler.params for name in param.opts}
    assert names >= {
        *("--mode", "--tiers", "--tier-with-lm", "--tier-skip-compile", "--tier-boundary", "--tier-batch-boundary"),
        *("--benchmark-output", "--example"),
    }


words = st.text("abc0123.", min_size=1)


@given(st.lists(words), st.lists(words))
def test_values_after_one_flag_are_the_values_after_many(several: list[str], other: list[str]) -> None:
    seen: dict[str, Any] = {}
    options: list[click.Parameter] = [Several(["--many"]), click.Option(["--one"]), click.Argument(["rest"], nargs=-1)]
    command = SpreadingCommand("x", params=options, callback=lambda **values: seen.update(values))
    command.main(["--many", *several, "--one", "1"] if several else ["--one", "1"], standalone_mode=False)
    assert seen["many"] == tuple(several)
    assert spread(["--one", *other], {"--many"}) == ["--one", *other]
