"""`python -m calibrate estimate` says what a song takes and under which cap it fits, on a card that is a formula."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep import tiers as tiers_module
from acestep.errors import Exit
from acestep.knobs import Backend, Knobs, Quantization, Variant
from acestep.limits.plan import Overrides
from acestep.tiers import load_tiers
from acestep.units import GIB, gib_to_bytes
from calibrate.cli import cli as calibrate
from calibrate.files import pretty_json
from calibrate.profiling.cli import cli as profiler
from calibrate.report.estimate import estimate, knobs_for, print_estimate
from calibrate.table.policy import budget_bytes
from calibrate.workload import Workload
from tests import formula_card
from tests.fakes import AnalyticProber
from tests.formula_card import NO_FLASH, POLICY, TABLE, Run

ESTIMATE_KEYS = {
    *("verdict", "knobs", "workload", "cap_bytes", "min_cap_bytes", "stages", "peak_reserved_bytes", "decode_path"),
    "songs_per_pass",
}
STAGE_KEYS = {
    *("name", "seconds", "songs_per_pass", "peak_allocated_bytes", "peak_reserved_bytes", "min_cap_bytes"),
    *("resident_bytes", "allowance_bytes"),
}

no_card, command = formula_card.no_card, formula_card.command


def estimated(command: Run, *arguments: object) -> dict[str, Any]:
    code, out, err = command(calibrate, "estimate", *arguments, "--json")
    assert code == Exit.OK, err
    return json.loads(out)  # type: ignore[no-any-return]


def test_estimate_prints_one_document_with_every_key_of_the_contract(command: Run) -> None:
    found = estimated(command, "--vram", 8, "--batch", 2, "--duration", 90)
    assert set(found) >= ESTIMATE_KEYS
    assert all(set(stage) >= STAGE_KEYS for stage in found["stages"])
    assert (found["workload"]["batch"], found["workload"]["duration_s"]) == (2, 90.0)


@pytest.mark.parametrize(("size", "nameplate"), [(8, 8), (7.6, 8), (15.56, 16), (6.4, 6.4)])
def test_vram_is_a_reported_size_and_probes_at_its_budget(command: Run, size: float, nameplate: float) -> None:
    budget = budget_bytes(nameplate if nameplate == int(nameplate) else gib_to_bytes(nameplate) / GIB, POLICY)
    assert estimated(command, "--vram", size)["cap_bytes"] == budget


def test_under_windows_a_run_takes_what_the_missing_kernel_takes_more(command: Run) -> None:
    linux, windows = (
        estimated(command, "--vram", 8, "--lm", "none", "--os", system)["min_cap_bytes"]
        for system in ("linux", "windows")
    )
    assert windows == linux + NO_FLASH


def test_cap_is_taken_as_it_is_and_the_smallest_cap_is_the_one_that_fits(command: Run) -> None:
    assert estimated(command, "--cap", 3.5)["cap_bytes"] == gib_to_bytes(3.5)
    smallest = estimated(command, "--smallest-cap", "--offload", "cpu")
    assert smallest["cap_bytes"] == smallest["min_cap_bytes"]
    assert smallest["verdict"] == "fits"
    below = estimated(command, "--cap", (smallest["min_cap_bytes"] - 1024) / GIB, "--offload", "cpu")
    assert below["verdict"] == "oom"


def test_knobs_come_from_the_tier_of_the_size_or_from_the_last_tier_under_a_plain_cap(command: Run) -> None:
    tier1 = estimated(command, "--vram", 4)["knobs"]
    promised = TABLE.variants[Variant.TURBO].tiers[0]
    assert (tier1["offload"], tier1["quantization"]) == (promised.offload, promised.quantization)
    for arguments in (("--cap", 4), ("--smallest-cap",)):
        knobs = estimated(command, *arguments)["knobs"]
        assert (knobs["offload"], knobs["quantization"]) == ("none", None)


def test_a_knob_that_is_given_is_probed_even_where_the_tier_would_refuse_it(command: Run) -> None:
    knobs = estimated(command, "--vram", 4, "--offload", "none", "--quantization", "none")["knobs"]
    assert (knobs["offload"], knobs["quantization"]) == ("none", None)
    assert estimated(command, "--vram", 4, "--offload", "none", "--quantization", "none")["verdict"] == "oom"


def test_a_simulated_card_runs_eagerly_whatever_was_asked(command: Run) -> None:
    assert estimated(command, "--vram", 8, "--compile")["knobs"]["compile"] is False


def test_the_text_table_shows_what_was_alive(command: Run) -> None:
    code, out, _ = command(calibrate, "estimate", "--vram", 8)
    assert code == Exit.OK
    assert "transformer" in out
    assert "MiB" in out
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize(("begun", "where"), [(2, "in denoise"), (0, "while the weights came in")])
def test_the_text_table_shows_where_memory_ran_out(begun: int, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = estimate(AnalyticProber(), Knobs(), Workload(batch=1, duration_s=60), 1)
    # A simulated run ends with the stage that ran out, and before the first where the weights alone do not fit.
    print_estimate(msgspec.structs.replace(found, stages=found.stages[:begun]))
    assert f"Memory ran out {where}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--vram", "8", "--cap", "3"),
        ("--cap", "3", "--smallest-cap"),
        ("--vram", "0"),
        ("--vram", "eight"),
        ("--vram", "0.5"),
        ("--vram", "8", "--batch", "0"),
        ("--vram", "8", "--duration", "601"),
        ("--vram", "8", "--duration", "nan"),
        ("--vram", "8", "--offload", "moon"),
        ("--vram", "8", "--variant", "huge"),
        ("--vram", "8", "--lm", "9B"),
        ("--nonsense",),
    ],
)
def test_invalid_estimate_options_are_a_usage_error(command: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = command(calibrate, "estimate", *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize("spoil", [lambda text: text[:500], lambda text: text.replace('"offload"', '"unload"')])
def test_a_malformed_table_is_invalid_input_named_in_a_sentence(
    command: Run, spoil: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "spoiled.json"
    path.write_text(spoil(pretty_json(TABLE)), encoding="utf-8")
    monkeypatch.setattr(tiers_module, "_table_in_force", lambda: load_tiers(path))
    for asked in ((calibrate, "estimate", "--vram", 8), (profiler, "--mode", "tier-test")):
        code, out, err = command(*asked)
        assert (code, out) == (Exit.INVALID, "")
        assert "spoiled.json" in err
        assert "Traceback" not in err


def test_a_language_model_is_estimated_with_its_stage(command: Run) -> None:
    found = estimated(command, "--vram", 8, "--lm", "0.6B", "--lm-quantization", "int8", "--backend", "pt")
    assert found["stages"][0]["name"] == "think"
    assert found["workload"]["with_lm"] is True
    knobs = found["knobs"]
    assert (knobs["lm"], knobs["lm_quantization"], knobs["backend"]) == ("0.6B", "int8", "pt")


@pytest.mark.parametrize("asked", [(), ("--lm", "0.6B")])
def test_work_on_a_song_that_exists_is_estimated_without_thinking(command: Run, asked: tuple[str, ...]) -> None:
    code, out, err = command(calibrate, "estimate", "--vram", 8, "--task", "cover", *asked, "--json")
    assert code == Exit.OK
    assert ("without planning" in err) == bool(asked)
    found = json.loads(out)
    assert (found["knobs"]["lm"], found["workload"]["with_lm"]) == (None, False)


def test_without_a_language_model_nothing_thinks(command: Run) -> None:
    found = estimated(command, "--vram", 8, "--lm", "none")
    assert found["workload"]["with_lm"] is False
    assert "think" not in {stage["name"] for stage in found["stages"]}


def test_a_quantized_language_model_is_estimated_on_the_backend_that_runs_one() -> None:
    wishes = Overrides(lm="4B", lm_quantization=Quantization.INT8)
    knobs, _ = knobs_for(load_tiers(), wishes, None)
    assert (knobs.lm, knobs.backend) == ("4B", Backend.PT)
    asked, _ = knobs_for(load_tiers(), msgspec.structs.replace(wishes, backend=Backend.VLLM), None)
    assert asked.backend is Backend.VLLM
