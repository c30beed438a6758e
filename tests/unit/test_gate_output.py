"""The verdict as people, scripts, GitHub and test reports read it: complete, escaped, and within their limits."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.units import MIB
from ci import gate as door
from ci.causes import causes
from ci.counting import counting
from ci.findings import GATE_RULES, Finding, GateVerdict, Level, verdict_of, worst_first
from ci.judge import Compared, Judgement
from ci.output import MOST_ANNOTATIONS, annotations, junit_xml, outputs, print_findings, summary
from tests.gate_faults import FIELDS
from tests.gate_house import committed, good

ROOT = Path(__file__).parents[2]
KEYS = {"id", "level", "variant", "tier", "field", "before", "after", "stage", "component", "message"}

texts = st.text(max_size=40)
values = st.none() | st.integers() | st.booleans() | texts
findings = st.builds(
    Finding,
    id=st.sampled_from(sorted(GATE_RULES)),
    level=st.sampled_from(Level),
    message=texts,
    variant=texts,
    tier=texts,
    field=texts,
    before=values,
    after=values,
    stage=texts,
    component=texts,
)


def judgement_of(found: list[Finding]) -> Judgement:
    return Judgement(
        verdict=verdict_of(found),
        base="main",
        head="this tree",
        compared=Compared(tiers=8, cells=21, records=1),
        findings=worst_first(found),
    )


def spoilt(name: str) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        house = good()
        next(fault for fault in FIELDS if fault.name == name).change(house)
        return house.written(place / "head")

    return write


WORSE = spoilt("more is offloaded")
OFFLOAD = next(tier["offload"] for tier in good().tiers if tier["id"] == "tier5")


@pytest.fixture
def gate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple]:
    """Runs the command on a table against a good one."""
    for variable in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(variable, raising=False)
    tree = tmp_path / "tree"
    good().written(tree)
    committed(tree)

    def call(head: Path, *options: str) -> tuple[int, str, str]:
        arguments = ["--base", "HEAD", "--tree", str(tree), "--head", str(head), "--table-only", *options]
        code = run_click(door.gate, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_json_is_one_document_with_the_keys_of_the_contract(gate: Callable[..., tuple], tmp_path: Path) -> None:
    code, out, _ = gate(WORSE(tmp_path), "--json")
    document = json.loads(out)
    assert (code, document["verdict"]) == (1, "regressed")
    assert all(set(finding) >= KEYS for finding in document["findings"])
    (found,) = [finding for finding in document["findings"] if finding["level"] == "error"]
    assert (found["id"], found["tier"], found["field"]) == ("G506", "tier5", "offload")
    assert (found["before"], found["after"]) == (OFFLOAD, "stream+encoders")


def test_a_person_reads_every_finding_and_the_verdict(gate: Callable[..., tuple], tmp_path: Path) -> None:
    code, out, err = gate(WORSE(tmp_path))
    assert code == 1
    assert "G506" in out
    assert f"turbo tier5: offload is stream+encoders, at the base it is {OFFLOAD}." in out
    assert out.splitlines()[-1].startswith("Verdict: regressed. 8 tiers compared")
    assert "::error" not in out + err


def grown(tier: str, before: int, after: int, *, rule: str = "G302", component: str = "activations") -> Finding:
    return Finding(
        id=rule,
        variant="turbo",
        tier=tier,
        field="decode.peak_allocated_bytes.without_lm",
        before=before * MIB,
        after=after * MIB,
        stage="decode",
        component=component,
        message=f"turbo {tier}: decode takes more.",
    )


def test_memory_that_grew_in_many_cells_is_one_cause_and_its_sentence_says_how_much_where() -> None:
    tiers = [grown(f"tier{number}", 100, 125 + 71 * (number == 3)) for number in range(1, 8)]
    other = grown("tier1", 100, 150, component="workspace")
    (one, two) = causes([*tiers, grown("tier1", 100, 130, rule="G301"), other])
    assert one.message == "decode +25 to +96 % in 7 tiers: activations; 1 of 8 cells no longer fit."
    assert len(one.findings) == 8
    assert two.message == other.message


def test_a_field_that_is_worse_in_many_tiers_is_one_cause() -> None:
    field = "max_duration_s.with_lm"
    lost = [
        Finding(id="G503", variant="turbo", tier=f"tier{n}", field=field, before=600, after=60, message="")
        for n in "123"
    ]
    (cause,) = causes(lost)
    assert cause.message.startswith("max_duration_s.with_lm in 3 tiers: 600 to 60 ")


@given(found=st.lists(findings, max_size=12))
def test_every_finding_has_one_cause_and_the_worst_come_first(found: list[Finding]) -> None:
    ordered = worst_first(found)
    told = causes(ordered)
    assert sorted(id(one) for cause in told for one in cause.findings) == sorted(map(id, ordered))
    places = [[id(one) for one in ordered].index(id(cause.first)) for cause in told]
    assert places == sorted(places)
    assert all(len({one.level for one in cause.findings}) == 1 for cause in told)


def test_a_person_reads_causes_bytes_as_mib_and_on_request_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    judgement = judgement_of([grown(f"tier{number}", 100, 150) for number in range(1, 5)])
    print_findings(judgement)
    short = capsys.readouterr().out
    assert "G302 error: decode +50 % in 4 tiers: activations." in short
    assert "--all lists each of the 4 findings" in short
    assert "tier3" not in short
    print_findings(judgement, single=True)
    whole = capsys.readouterr().out
    assert all(f"turbo tier{number}: decode takes more." in whole for number in range(1, 5))
    told = summary(judgement)
    assert "150 MiB" in told
    assert str(150 * MIB) not in short + whole + told


def test_progress_says_which_of_how_many_and_how_long_it_took() -> None:
    seconds = iter((0.0, 1.2, 61.0))
    told: list[str] = []
    tell = counting(told.append, 2, lambda: next(seconds))
    tell("one")
    tell("two")
    assert told == ["1 of 2, 1 s: one", "2 of 2, 61 s: two"]


def test_a_broken_cell_of_a_table_is_told_with_its_variant(gate: Callable[..., tuple], tmp_path: Path) -> None:
    path = good().written(tmp_path / "head")
    table = json.loads(path.read_text(encoding="utf-8"))
    variant = list(table["variants"])[-1]
    table["variants"][variant]["tiers"][2]["max_batch"]["with_lm"] = "many"
    path.write_text(json.dumps(table), encoding="utf-8")
    code, out, _ = gate(path, "--json")
    (found, *_) = json.loads(out)["findings"]
    assert (code, found["id"], found["variant"]) == (3, "G101", variant)
    assert f".variants.{variant}.tiers[" in found["message"]


def test_on_github_there_are_annotations_a_summary_and_outputs(
    gate: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name, path in files.items():
        monkeypatch.setenv(name, str(path))
    code, out, err = gate(WORSE(tmp_path), "--json")
    assert code == 1
    json.loads(out)
    assert "::error title=G506 turbo tier5::" in err
    assert "## Gate: regressed" in files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
    assert "verdict=regressed\n" in files["GITHUB_OUTPUT"].read_text(encoding="utf-8")


def test_a_summary_that_cannot_be_written_is_told_and_changes_no_exit_code(
    gate: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path))
    for head, expected in ((good().written(tmp_path / "same"), 0), (WORSE(tmp_path), 1)):
        code, out, err = gate(head, "--json")
        assert (code, json.loads(out)["verdict"]) == (expected, "regressed" if expected else "ok")
        assert f"could not write {tmp_path / 'nowhere' / 'summary'}: No such file" in err
        assert f"could not write {tmp_path}: Is a directory" in err


READ = (
    *(f"{side}/tiers/{name}" for side in ("same", "tree") for name in ("generated_tiers.json", "policy.json")),
    "tree/tiers/waivers.json",
    "tree/tiers/tolerance.json",
    "tree/tiers/anchor.json",
    "tree/tiers/measurements/of_a_later_run.json",
    "tree/tiers/../tiers/policy.json",
    "link.json",
)


@pytest.mark.parametrize("name", READ)
def test_no_report_takes_the_place_of_a_file_that_the_gate_reads(
    gate: Callable[..., tuple], name: str, tmp_path: Path
) -> None:
    head = good().written(tmp_path / "same")
    (tmp_path / "link.json").symlink_to(head)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    code, out, err = gate(head, "--junit", str(tmp_path / name))
    assert (code, out) == (2, "")
    assert "--junit" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_a_report_may_lie_beside_what_is_read(gate: Callable[..., tuple], tmp_path: Path) -> None:
    head = good().written(tmp_path / "same")
    for _ in range(2):
        assert gate(head, "--junit", str(head.parent / "gate.xml"))[0] == 0


@pytest.mark.parametrize("option", ["--junit", "--head"])
def test_an_empty_name_of_a_file_is_a_usage_error_that_names_its_option(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(door.gate, ["--base", "HEAD", "--table-only", option, ""]) == 2
    assert option in capsys.readouterr().err


def test_junit_fails_exactly_the_rules_that_were_broken(gate: Callable[..., tuple], tmp_path: Path) -> None:
    report = tmp_path / "gate.xml"
    gate(WORSE(tmp_path), "--junit", str(report))
    suite = ET.parse(report).getroot()  # noqa: S314 our own
    assert int(suite.get("tests", "0")) == len(suite.findall("testcase")) == len(GATE_RULES)
    failed = [case.get("name", "") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert [name.split()[0] for name in failed] == ["G506"]


@given(st.lists(findings, max_size=40))
def test_annotations_are_one_line_each_and_no_more_than_are_shown(found: list[Finding]) -> None:
    lines = list(annotations(worst_first(found)))
    for level in Level:
        alike = [line for line in lines if line.startswith(f"::{level} ")]
        wanted = sum(finding.level is level for finding in found)
        assert len(alike) == min(wanted, MOST_ANNOTATIONS)
        assert (" more; " in alike[-1]) if wanted > MOST_ANNOTATIONS else True
    assert all("\n" not in line and "\r" not in line for line in lines)
    assert all("," not in line.split("::")[1].removeprefix("title=") for line in lines)


def test_what_was_not_simulated_is_told_to_later_steps_and_in_the_report() -> None:
    whole = judgement_of([])
    part = msgspec.structs.replace(whole, not_simulated=("base", "sft"))
    assert "not_simulated=\n" in outputs(whole)
    assert "not_simulated=base,sft\n" in outputs(part)
    assert ET.fromstring(junit_xml(whole)).find("properties") is None  # noqa: S314 our own
    told = ET.fromstring(junit_xml(part)).find("properties/property")  # noqa: S314 our own
    assert told is not None
    assert told.attrib == {"name": "not_simulated", "value": "base, sft"}


@given(st.lists(findings, max_size=10))
def test_no_text_breaks_out_of_the_summary_or_the_report(found: list[Finding]) -> None:
    judgement = judgement_of(found)
    rows = [line for line in summary(judgement).splitlines() if line.startswith("| ")]
    assert len(rows) == (len(found) + 2 if found else 0)
    assert all(line.count("|") == 10 and "<" not in line for line in rows)
    ET.fromstring(junit_xml(judgement))  # noqa: S314 our own
    json.loads(msgspec.json.encode(judgement))


def test_a_long_summary_is_cut_and_says_so() -> None:
    found = [Finding(id="G502", level=Level.ERROR, message="x", field="f" * 500) for _ in range(2000)]
    text = summary(judgement_of(found))
    assert len(text.encode()) < MIB
    assert text.rstrip().endswith("more.")


@given(st.lists(findings, max_size=20))
def test_what_stops_a_change_comes_first_and_decides(found: list[Finding]) -> None:
    levels = [list(Level).index(finding.level) for finding in worst_first(found)]
    assert levels == sorted(levels)
    stopping = {GATE_RULES[finding.id].verdict for finding in found if finding.level is Level.ERROR} - {GateVerdict.OK}
    assert (verdict_of(found) is GateVerdict.OK) == (not stopping)


def test_comparing_tables_with_ci_gate_imports_no_torch(tmp_path: Path) -> None:
    good().written(tmp_path)
    committed(tmp_path)
    program = (
        "import sys, runpy; sys.argv = ['gate', '--base', 'HEAD', '--tree', sys.argv[1], '--table-only'];"
        "sys.modules['torch'] = None; runpy.run_module('ci.gate', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (
        0,
        ["Verdict: ok. 8 tiers compared, 0 cells probed again, 0 records read; nothing found."],
    ), done.stderr


@pytest.mark.parametrize("arguments", [[], ["--base"], ["--base", ""], ["--base", "x", "--tolerance", "1"]])
def test_an_invalid_value_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_click(door.gate, arguments) == 2
    assert capsys.readouterr().out == ""
