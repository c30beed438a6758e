"""`python -m calibrate` and `profile_inference.py`: flags, exit codes and documents, on a card that is a formula."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep import tiers as tiers_module
from acestep.console import run
from acestep.errors import Exit, NotMeasuredError, UsageError
from acestep.hardware import CPU
from acestep.knobs import Backend, Knobs, Quantization, Variant
from acestep.plan import Overrides
from acestep.tiers import load_tiers
from acestep.units import GIB, gib_to_bytes
from calibrate import probers
from calibrate.cli import cli as calibrate
from calibrate.estimate import knobs_for
from calibrate.executors.alone import Alone
from calibrate.executors.base import Executor
from calibrate.files import output_file, pretty_json
from calibrate.options import Several, SpreadingCommand, spread
from calibrate.policy import budget_bytes, load_policy
from calibrate.probes.base import Prober
from calibrate.profiling.cli import cli as profiler
from calibrate.record import CapMethod, load_measurement, measurement_of
from calibrate.table import build_table
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, measured

ROOT = Path(__file__).parents[2]
POLICY = load_policy()
TABLE = build_table([measured()], POLICY)


class Forgetful(AnalyticProber):
    """On this card no language model fits."""

    def think_bytes(self, knobs: Knobs, workload: Workload, songs: int) -> int:
        return 99 * GIB if workload.with_lm else 0


WITHOUT_LM = build_table([measured(Forgetful())], POLICY)
ESTIMATE_KEYS = {
    *("verdict", "knobs", "workload", "cap_bytes", "min_cap_bytes", "stages", "peak_reserved_bytes", "decode_path"),
    "songs_per_pass",
}
STAGE_KEYS = {
    *("name", "seconds", "songs_per_pass", "peak_allocated_bytes", "peak_reserved_bytes", "min_cap_bytes"),
    *("resident_bytes", "allowance_bytes"),
}


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No real card, a formula for the simulated one, and the table made from it in force."""

    def prober_for(device: str, vae_chunk: int = 0) -> Prober:
        if device == "simulated":
            return AnalyticProber()
        raise NotMeasuredError("no NVIDIA card was found")

    @contextmanager
    def executor_for(device: str, method: CapMethod) -> Iterator[Executor]:
        yield Alone(probers.prober_for(device))

    monkeypatch.setattr(probers, "prober_for", prober_for)
    monkeypatch.setattr(probers, "executor_for", executor_for)
    monkeypatch.setattr(probers, "detect", lambda _: CPU)
    path = tmp_path / "table" / "generated_tiers.json"
    path.parent.mkdir()
    path.write_text(pretty_json(TABLE), encoding="utf-8")
    in_force = load_tiers(path)
    monkeypatch.setattr(tiers_module, "_table_in_force", lambda: in_force)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(which: click.Command, *arguments: object) -> tuple[int, str, str]:
        code = run(which, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


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


def test_the_table_for_people_says_what_was_alive(command: Run) -> None:
    code, out, _ = command(calibrate, "estimate", "--vram", 8)
    assert code == Exit.OK
    assert "transformer" in out
    assert "MiB" in out
    assert all(line == line.rstrip() for line in out.splitlines())


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
def test_an_estimate_that_cannot_mean_anything_is_a_usage_error(command: Run, arguments: tuple[str, ...]) -> None:
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


def test_run_writes_a_record_that_merge_turns_into_the_table(command: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tiers"
    (folder / "measurements").mkdir(parents=True)
    shutil.copy(ROOT / "tiers" / "policy.json", folder)
    record = folder / "measurements" / "formula.json"
    code, out, err = command(calibrate, "run", "--device", "simulated", "-o", record)
    assert (code, out) == (Exit.OK, "")
    assert err.count("fits") + err.count(": oom") >= len(load_measurement(record).probes)
    written = []
    for _ in range(2):
        assert command(calibrate, "merge", "--folder", folder)[0] == Exit.OK
        written.append((folder / "generated_tiers.json").read_bytes())
    assert written[0] == written[1]
    assert load_tiers(folder / "generated_tiers.json").generated_from.records == (load_measurement(record).digest,)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_merge_without_records_could_not_measure_and_leaves_the_table(command: Run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    table = tmp_path / "generated_tiers.json"
    table.write_text("kept")
    assert command(calibrate, "merge", "--folder", tmp_path)[0] == Exit.NOT_MEASURED
    assert table.read_text() == "kept"


def test_merge_without_a_checkout_asks_for_one(command: Run, tmp_path: Path) -> None:
    code, out, err = command(calibrate, "merge", "--folder", tmp_path / "absent")
    assert (code, out) == (Exit.USAGE, "")
    for part in (str(tmp_path / "absent"), "checkout", "--folder"):
        assert part in err
    assert not (tmp_path / "absent").exists()


def test_merge_names_the_record_it_cannot_use(command: Run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    (tmp_path / "measurements").mkdir()
    (tmp_path / "measurements" / "cut.json").write_text('{"schema_version": 1, ')
    code, _, err = command(calibrate, "merge", "--folder", tmp_path)
    assert code == Exit.INVALID
    assert "cut.json" in err
    assert "Traceback" not in err


def test_merge_takes_no_record_that_could_not_have_been_measured(command: Run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    (tmp_path / "measurements").mkdir()
    honest = measured()
    hollow = tuple(msgspec.structs.replace(probe, stages=()) for probe in honest.probes)
    for name, record in (("honest", honest), ("made-up", measurement_of(honest.card, hollow, honest.certificates))):
        (tmp_path / "measurements" / f"{name}.json").write_text(pretty_json(record), encoding="utf-8")
    code, _, err = command(calibrate, "merge", "--folder", tmp_path)
    assert code == Exit.INVALID
    assert "made-up.json" in err
    assert "V1" in err
    assert not (tmp_path / "generated_tiers.json").exists()


def test_dry_run_says_what_it_would_do_and_probes_nothing(
    command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probers, "prober_for", lambda _: pytest.fail("a dry run asks nobody"))
    code, out, err = command(calibrate, "run", "--tiers", 8, 12, "--dry-run", "-o", tmp_path / "x.json")
    assert (code, out) == (Exit.OK, "")
    assert "8 GiB (budget 6.94 GiB)" in err
    assert "probes" in err
    assert not list(tmp_path.glob("*.json"))


def test_a_real_card_that_is_not_there_is_could_not_measure(command: Run, tmp_path: Path) -> None:
    assert command(calibrate, "run", "--device", "cuda", "-o", tmp_path / "x.json")[0] == Exit.NOT_MEASURED


def test_a_path_that_cannot_be_written_is_found_before_the_first_probe(
    command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prober = AnalyticProber()
    monkeypatch.setattr(probers, "prober_for", lambda _: prober)
    for target in (tmp_path / "missing" / "x.json", tmp_path):
        assert command(calibrate, "run", "-o", target)[0] == Exit.USAGE
        assert command(profiler, "--mode", "tier-test", "--benchmark-output", target)[0] == Exit.USAGE
    assert prober.asked == []


def test_a_result_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("before")

    def interrupted() -> None:
        with output_file(target):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "before"
    with output_file(target) as write:
        write("after")
    assert target.read_text() == "after"
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "table"}


def test_a_pipe_or_device_is_refused_and_stays_what_it_is(command: Run, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for target in (pipe, link):
        for asked in ((calibrate, "run", "-o"), (profiler, "--mode", "tier-test", "--benchmark-output")):
            code, _, err = command(*asked, target)
            assert code == Exit.USAGE
            assert str(target) in err
    assert pipe.is_fifo()
    assert link.is_symlink()


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_written_through(tmp_path: Path, exists: bool) -> None:
    real, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    real.parent.mkdir()
    if exists:
        real.write_text("before")
    link.symlink_to(real)
    with output_file(link) as write:
        write("after")
    assert (link.is_symlink(), real.is_symlink(), real.read_text()) == (True, False, "after")
    assert [path.name for path in real.parent.iterdir()] == ["real.json"]


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(link)
    with pytest.raises(UsageError, match=r"link\.json"), output_file(link):
        pass


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

    monkeypatch.setattr(probers, "prober_for", lambda _: Full())
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
def test_a_profile_that_cannot_mean_anything_is_a_usage_error(command: Run, arguments: tuple[str, ...]) -> None:
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


@pytest.mark.parametrize("arguments", [("-m", "calibrate", "--help"), ("profile_inference.py", "--help")])
def test_help_and_usage_errors_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "numpy", "pandas", "rich"}


def test_a_quantized_language_model_is_estimated_on_the_backend_that_runs_one() -> None:
    wishes = Overrides(lm="4B", lm_quantization=Quantization.INT8)
    knobs, _ = knobs_for(load_tiers(), wishes, None)
    assert (knobs.lm, knobs.backend) == ("4B", Backend.PT)
    asked, _ = knobs_for(load_tiers(), msgspec.structs.replace(wishes, backend=Backend.VLLM), None)
    assert asked.backend is Backend.VLLM
