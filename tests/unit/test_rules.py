"""A contributed file that breaks a rule is refused with the rule, the file and the field; a good one is accepted."""

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit
from calibrate.cli import cli
from calibrate.record import contributed, rules
from calibrate.record.contributed import validate
from calibrate.record.flaws import BracketError, Flaw
from calibrate.record.measurement import load_measurement
from calibrate.record.rules import RECORD_RULES, RuleLevel, declared
from calibrate.verdict import Verdict
from tests.damage import DAMAGES as SHAPES
from tests.damage import GOOD, OOM, Damage, put, sealed
from tests.damage_of_meaning import CARDS, MEANINGS, on_card
from tests.fakes import AnalyticProber
from tests.processes import imported_by

ROOT = Path(__file__).parents[2]
DAMAGES = (*SHAPES, *MEANINGS)
WARNINGS = {"V103", "V114", "V125"}
PHYSICS = {"V201", "V202", "V203", "V204", "V205", "V206"}
"""Rules that need a simulation."""


def stored(content: bytes, folder: Path) -> Path:
    path = folder / "contributed.json"
    path.write_bytes(content)
    return path


def test_a_verdict_says_something_of_the_fit_where_the_run_ended_by_itself_or_of_memory() -> None:
    assert {verdict for verdict in Verdict if verdict.answers} == {Verdict.FITS, Verdict.DEGRADED, Verdict.OOM}


def test_every_flaw_of_a_record_that_cannot_be_read_has_a_rule_of_its_own() -> None:
    assert set(contributed._RULE_OF) == set(Flaw)
    assert len({rule.id for rule in contributed._RULE_OF.values()}) == len(Flaw)


def test_a_rule_does_not_depend_on_the_words_of_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BracketError, "__str__", lambda self: "digest schema_version unknown field")
    [damage] = [one for one in DAMAGES if one.name == "a certificate of nothing"]
    assert [finding.id for finding in validate(stored(damage.spoil(), tmp_path))] == [damage.rule]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_damaged_file_is_refused_with_rule_file_and_field(damage: Damage, tmp_path: Path) -> None:
    path = stored(damage.spoil(), tmp_path)
    found = [f for f in validate(path) if f.id == damage.rule]
    assert found, f"expected {damage.rule}, got {validate(path)}"
    assert all((f.level, f.file) == (RuleLevel.ERROR, str(path)) for f in found)
    assert any(damage.field in f.field for f in found), found
    assert all(f.message.isprintable() and f.field.isprintable() for f in found)


def test_sixty_damages_break_every_rule_that_refuses() -> None:
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES) >= 60
    assert {damage.rule for damage in DAMAGES} == {
        i for i, rule in RECORD_RULES.items() if rule.level is RuleLevel.ERROR and i not in PHYSICS
    }
    assert {i for i, rule in RECORD_RULES.items() if rule.level is RuleLevel.WARNING} == WARNINGS


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA RTX 4000 SFF Ada Generation", "8.9"),
        ("NVIDIA RTX 2000E Ada Generation", "8.9"),
        ("NVIDIA GeForce RTX 2050", "8.6"),
        ("NVIDIA GeForce RTX 3050 A Laptop GPU", "8.9"),
        ("NVIDIA GeForce RTX 3050 Laptop GPU", "8.6"),
    ],
)
def test_a_small_or_rare_card_has_its_compute_capability(name: str, capability: str, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(GOOD)
    on_card(name, capability, 11.6)(document)
    assert "V123" not in {found.id for found in validate(stored(sealed(document), tmp_path))}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[0])
def test_a_card_that_exists_is_accepted_and_an_unknown_one_is_named(
    card: tuple[str, str, float], tmp_path: Path
) -> None:
    document: dict[str, Any] = json.loads(GOOD)
    on_card(*card)(document)
    found = {(f.id, f.level.value) for f in validate(stored(sealed(document), tmp_path))}
    assert found == ({("V125", "warning")} if "unheard" in card[0] else set())


def test_a_good_file_breaks_no_rule(tmp_path: Path) -> None:
    assert validate(stored(GOOD.encode(), tmp_path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tiers" / "measurements").glob("*.json")), ids=lambda p: p.name)
def test_every_stored_file_is_accepted(path: Path) -> None:
    assert {finding.level for finding in validate(path)} <= {RuleLevel.WARNING}


@pytest.fixture
def a_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation is the formula that the good record comes from."""
    monkeypatch.setattr("calibrate.campaign.physics.simulation_of", lambda *_: AnalyticProber())


@pytest.mark.usefixtures("a_formula")
def test_what_only_asks_for_a_look_refuses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(GOOD)
    put("code_version", "0.0.1+tree.0123456789abcdef")(document)
    fit = next(p for p in document["probes"] if p["verdict"] == "fits")
    document["probes"].append({**fit, "verdict": "oom", "cap_bytes": fit["cap_bytes"] + 1, "stages": []})
    path = stored(sealed(document), tmp_path)
    assert {finding.id for finding in validate(path)} == WARNINGS - {"V125"}
    assert run_click(cli, ["validate", str(path)]) == Exit.OK
    assert "warning V103" in capsys.readouterr().out


@pytest.mark.usefixtures("a_formula")
def test_the_command_prints_one_document_and_refuses_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad.json", stored(GOOD.encode(), tmp_path)
    bad.write_text("{")
    assert run_click(cli, ["validate", str(good), str(bad), str(tmp_path / "absent.json"), "--json"]) == Exit.INVALID
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "invalid"
    assert [(f["id"], f["file"]) for f in told["findings"]] == [
        ("V002", str(bad)),
        ("V001", str(tmp_path / "absent.json")),
    ]
    assert run_click(cli, ["validate", str(good), "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"verdict": "ok", "findings": []}
    assert run_click(cli, ["validate"]) == Exit.USAGE


def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        assert [finding.id for finding in validate(path)] == ["V001"]


def test_a_file_full_of_faults_is_told_in_a_few_lines(tmp_path: Path) -> None:
    document = json.loads(GOOD)
    for probe in document["probes"]:
        probe["songs_per_pass"] = 64
    document["certificates"] = document["certificates"][:1]
    assert 0 < len(validate(stored(sealed(document), tmp_path))) <= 5 * len(RECORD_RULES)


@settings(max_examples=30)
@given(data=st.data())
def test_no_edit_of_one_value_makes_a_sealed_file_crash_the_check(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    document: Any = json.loads(GOOD)
    node = document
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(st.sampled_from([None, -1, 0, 1, 2**40, 0.5, "", "x", [], {}, True, "fits"]))
    path = stored(sealed(document) if isinstance(document, dict) else b"{}", tmp_path_factory.mktemp("edited"))
    refused = any(finding.level is RuleLevel.ERROR for finding in validate(path))
    if not refused:
        assert load_measurement(path).digest == json.loads(path.read_text())["digest"]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ('{"a": ' + "9" * 400 + "}", "V004"),
        ('{"' + "k" * 2_000_000 + '": [' + ",".join("0" * 500_000) + "]}", "V006"),
        ("{" + ",".join(f'"{n}":0' for n in range(200_000)) + ',"199999":0}', "V005"),
        ('{"probes": [' + ",".join(["{}"] * 1_000_000) + "]}", "V101"),
    ],
    ids=["a number beyond any float", "a key of megabytes above many values", "a late repeat", "a million probes"],
)
def test_what_is_made_to_exhaust_the_check_is_refused_in_time(content: str, rule: str, tmp_path: Path) -> None:
    started = time.monotonic()
    found = validate(stored(content.encode(), tmp_path))
    assert found[0].id == rule
    assert sum(len(finding.field) for finding in found) < 10_000
    assert time.monotonic() - started < 20


def test_an_id_is_given_once_and_every_rule_has_a_promise() -> None:
    assert all(rule.id == rule_id and len(rule.promise) > 10 for rule_id, rule in RECORD_RULES.items())
    with pytest.raises(ValueError, match="V001"):
        declared("V001", "again")


def test_a_failing_probe_in_a_good_file_is_no_damage(tmp_path: Path) -> None:
    assert json.loads(GOOD)["probes"][OOM]["verdict"] == "oom"
    record = load_measurement(stored(GOOD.encode(), tmp_path))
    assert rules.broken_rules(msgspec.structs.replace(record, memory_model=())) == []


def test_the_rules_load_no_torch_and_no_network(tmp_path: Path) -> None:
    path = stored(GOOD.encode(), tmp_path)
    checked = (
        f"from pathlib import Path; from calibrate.record.contributed import validate; validate(Path({str(path)!r}))"
    )
    imported = imported_by("-c", checked)
    assert "calibrate.record.rules" in imported
    assert not imported & {"torch", "numpy", "pandas", "rich", "ssl"}
