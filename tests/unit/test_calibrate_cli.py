"""`python -m calibrate run` and `merge` write a record and the table made from it, each whole or not at all."""

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from acestep.budgets import System
from acestep.errors import Exit, UsageError
from acestep.knobs import Variant
from acestep.output_file import output_file
from acestep.tiers import load_tiers
from acestep.units import MIB, gib
from calibrate.campaign import probers
from calibrate.cli import cli as calibrate
from calibrate.executors.alone import SimulationAlone
from calibrate.files import pretty_json
from calibrate.profiling.cli import cli as profiler
from calibrate.record.contributed import validate
from calibrate.record.measurement import Coefficient, load_measurement, measurement_of
from calibrate.record.rules import RuleLevel
from calibrate.table.policy import budget_bytes
from tests import formula_card
from tests.damage import sealed
from tests.damage_of_meaning import on_card
from tests.fakes import AnalyticProber, Hungry, measured
from tests.formula_card import POLICY, Run
from tests.processes import imported_by

ROOT = Path(__file__).parents[2]

no_card, command = formula_card.no_card, formula_card.command


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


def test_merge_refuses_coefficients_that_the_simulation_does_not_fit(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measurements").mkdir()
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    told = Coefficient(variant=Variant.TURBO, name="none.none.rest", value=1.0)
    record = msgspec.structs.replace(measured(), memory_model=(told,)).sealed()
    (tmp_path / "measurements" / "forged.json").write_text(pretty_json(record))
    monkeypatch.setattr("calibrate.campaign.physics.simulation_of", lambda *_: AnalyticProber())
    code, _, err = command(calibrate, "merge", "--folder", tmp_path)
    assert code == Exit.INVALID
    assert "V206" in err
    assert not (tmp_path / "generated_tiers.json").exists()


def test_merge_keeps_a_table_that_can_be_read_where_the_new_one_cannot(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measurements").mkdir()
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    (tmp_path / "measurements" / "card.json").write_text(pretty_json(measured()))
    assert command(calibrate, "merge", "--folder", tmp_path)[0] == Exit.OK
    before = (tmp_path / "generated_tiers.json").read_bytes()
    unreadable = msgspec.structs.replace(load_tiers(tmp_path / "generated_tiers.json"), schema_version=99)
    monkeypatch.setattr("calibrate.table.merge.build_table", lambda *_: unreadable)
    code, _, err = command(calibrate, "merge", "--folder", tmp_path)
    assert code == Exit.INVALID
    assert "schema_version is 99" in err
    assert (tmp_path / "generated_tiers.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_merge_without_records_exits_4_and_keeps_the_table(command: Run, tmp_path: Path) -> None:
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


def test_merge_refuses_a_record_with_impossible_values(command: Run, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("simulated", [True, False])
def test_no_record_of_any_card_is_merged_that_the_simulation_contradicts(
    simulated: bool, command: Run, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path)
    (tmp_path / "measurements").mkdir()
    document = json.loads(pretty_json(measured(Hungry(-900 * MIB))))
    if not simulated:
        on_card("NVIDIA H100 80GB HBM3", "9.0", 79.2)(document)
    path = tmp_path / "measurements" / "frugal.json"
    path.write_bytes(sealed(document))
    assert not any(finding.level is RuleLevel.ERROR for finding in validate(path))
    assert command(calibrate, "validate", path)[0] == Exit.INVALID
    code, _, err = command(calibrate, "merge", "--folder", tmp_path)
    assert code == Exit.INVALID
    assert "V20" in err
    assert not (tmp_path / "generated_tiers.json").exists()


def test_dry_run_says_what_it_would_do_and_probes_nothing(
    command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probers, "alone_on", lambda _: pytest.fail("a dry run asks no card"))
    code, out, err = command(calibrate, "run", "--tiers", 8, 12, "--dry-run", "-o", tmp_path / "x.json")
    assert (code, out) == (Exit.OK, "")
    assert f"8 GiB (budget {gib(budget_bytes(8, POLICY))})" in err
    assert "probes" in err
    assert not list(tmp_path.glob("*.json"))


def test_a_run_under_windows_says_so_in_its_record_and_fits_no_model_of_the_guard(command: Run, tmp_path: Path) -> None:
    code, _, err = command(calibrate, "run", "--os", "windows", "--tiers", 8, "-o", tmp_path / "x.json")
    assert code == Exit.OK, err
    assert "under Windows" in err
    record = load_measurement(tmp_path / "x.json")
    assert (record.card.system, record.memory_model) == (System.WINDOWS, ())


def test_what_a_real_card_runs_under_is_not_chosen(command: Run, tmp_path: Path) -> None:
    for which, *words in ((calibrate, "run", "-o", tmp_path / "x.json"), (profiler, "--mode", "tier-test")):
        assert command(which, *words, "--device", "cuda", "--os", "windows")[0] == Exit.USAGE


def test_a_missing_card_exits_4(command: Run, tmp_path: Path) -> None:
    assert command(calibrate, "run", "--device", "cuda", "-o", tmp_path / "x.json")[0] == Exit.NOT_MEASURED


def test_a_path_that_cannot_be_written_is_found_before_the_first_probe(
    command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prober = AnalyticProber()
    monkeypatch.setattr(probers, "alone_on", lambda _: SimulationAlone(prober))
    for target in (tmp_path / "missing" / "x.json", tmp_path):
        assert command(calibrate, "run", "-o", target)[0] == Exit.USAGE
        assert command(profiler, "--mode", "tier-test", "--benchmark-output", target)[0] == Exit.USAGE
    assert prober.asked == []


def test_a_result_file_is_complete_or_absent(tmp_path: Path) -> None:
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


def test_circular_links_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(link)
    with pytest.raises(UsageError, match=r"link\.json"), output_file(link):
        pass


@pytest.mark.parametrize("arguments", [("-m", "calibrate", "--help"), ("profile_inference.py", "--help")])
def test_help_and_usage_errors_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    imported = imported_by(*arguments)
    assert "click" in imported
    assert not imported & {"torch", "numpy", "pandas", "rich"}
