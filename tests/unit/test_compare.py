"""`calibrate compare` lists every difference of two records or tables once, the worst first, and nothing else."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit
from acestep.knobs import LM_MODELS
from acestep.tiers import TierTable
from acestep.units import MIB
from calibrate.cli import cli
from calibrate.files import pretty_json
from calibrate.record.compare import Sheet, Way, differences, record_sheet, table_sheet
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from tests.fakes import Hungry, measured
from tests.processes import imported_by

ROOT = Path(__file__).parents[2]
RECORD = measured(sizes=(4, 8))
TABLE = build_table([measured()], load_policy())


def edited(table: TierTable, field: str, value: Any) -> TierTable:
    document = msgspec.to_builtins(table)
    document["variants"]["turbo"]["tiers"][0][field] = value
    return msgspec.convert(document, TierTable)


def stored(value: Any, path: Path) -> Path:
    path.write_text(pretty_json(value), encoding="utf-8")
    return path


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([10, 10.5, 11.5, "a", "cpu", "fits"])
fields = st.sampled_from(["offload", "seconds", "frontier.1", "verdict", "compile", "peak_reserved_bytes", "fits_gib"])
sheets = st.dictionaries(st.sampled_from("abc"), st.dictionaries(fields, scalars))


@given(sheets, sheets)
def test_every_difference_is_told_once_and_nothing_else(before: Sheet, after: Sheet) -> None:
    found = differences(before, after)
    told = [(change.place, change.field) for change in found]
    assert len(set(told)) == len(told)
    for place in {*before, *after}:
        if place not in before or place not in after:
            assert (place, "") in told
            continue
        for field in {*before[place], *after[place]}:
            old, new = before[place].get(field), after[place].get(field)
            alike = field == "seconds" and {old, new} in ({10, 10.5}, {10.5, 11.5})
            assert ((place, field) in told) == (old != new and not alike)
    ranks = [list(Way).index(change.way) for change in found]
    assert ranks == sorted(ranks)


@given(sheets, sheets)
def test_what_is_better_one_way_is_worse_the_other(before: Sheet, after: Sheet) -> None:
    opposite = {Way.BETTER: Way.WORSE, Way.WORSE: Way.BETTER, Way.ADDED: Way.REMOVED, Way.REMOVED: Way.ADDED}
    there = {(c.place, c.field): c.way for c in differences(before, after)}
    back = {(c.place, c.field): c.way for c in differences(after, before)}
    assert back == {key: opposite.get(way, way) for key, way in there.items()}


@pytest.mark.parametrize(
    ("before", "after", "way"),
    [
        (10.0, 11.0, None),
        (11.0, 10.0, None),
        (10.0, 11.1, Way.WORSE),
        (11.1, 10.0, Way.BETTER),
        (0.0, 9.0, Way.CHANGED),
        (9.0, 0.0, Way.CHANGED),
        (None, 9.0, Way.CHANGED),
        (9.0, None, Way.CHANGED),
    ],
)
def test_clocks_agree_within_a_tenth_and_one_that_did_not_run_agrees_with_none(
    before: float | None, after: float | None, way: Way | None
) -> None:
    field = "denoise.seconds"
    found = differences({"here": {field: before}}, {"here": {field: after}})
    assert [change.way for change in found] == ([] if way is None else [way])


def test_a_card_that_needs_more_memory_is_worse_and_a_boundary_says_so() -> None:
    found = differences(record_sheet(RECORD), record_sheet(measured(Hungry(300 * MIB), sizes=(4, 8))))
    boundaries = [change for change in found if change.place.startswith("boundary") and change.field]
    assert boundaries
    assert {change.way for change in boundaries} == {Way.WORSE}


@pytest.mark.parametrize(
    ("field", "value", "way"),
    [
        ("offload", "none", Way.BETTER),
        ("quantization", "int8", Way.WORSE),
        ("backends_allowed", ["pt"], Way.WORSE),
        ("label", "another", Way.CHANGED),
        ("init_lm", True, Way.CHANGED),
    ],
)
def test_less_offload_is_better_and_quantization_is_worse(field: str, value: Any, way: Way) -> None:
    before = edited(edited(TABLE, "quantization", None), "offload", "stream")
    [change] = differences(table_sheet(before), table_sheet(edited(before, field, value)))
    assert (change.place, change.field, change.way) == ("turbo tier1", field, way)


@pytest.mark.parametrize(
    ("field", "rising"), [("recommended_lm", (None, *LM_MODELS)), ("decode_path", ("cpu", "gpu-offload", "gpu"))]
)
def test_a_larger_language_model_and_a_faster_decode_are_better(field: str, rising: tuple[str | None, ...]) -> None:
    for less, more in pairwise(rising):
        [change] = differences({"here": {field: less}}, {"here": {field: more}})
        assert change.way is Way.BETTER


def test_the_command_tells_json_csv_and_a_page_of_the_same_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored(RECORD, tmp_path / "a.json")
    after = stored(measured(Hungry(300 * MIB), sizes=(4, 8)), tmp_path / "b.json")
    sheet = tmp_path / "changes.csv"
    assert run_click(cli, ["compare", str(before), str(after), "--csv", str(sheet), "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["before"], told["after"]) == ("record", str(before), str(after))
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["place"], row["field"], row["way"]) for row in rows] == [
        (change["place"], change["field"], change["way"]) for change in told["changes"]
    ]
    assert run_click(cli, ["compare", str(before), str(after)]) == Exit.OK
    assert len(capsys.readouterr().out.rstrip().splitlines()) == len(rows) + 2


def test_nothing_that_changed_is_told_as_that_and_is_an_empty_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, sheet = stored(TABLE, tmp_path / "a.json"), tmp_path / "changes.csv"
    assert run_click(cli, ["compare", str(table), str(table), "--csv", str(sheet)]) == Exit.OK
    assert "no change" in capsys.readouterr().out
    assert sheet.read_text() == "place,field,before,after,way,growth\n"


@pytest.mark.parametrize("same", [True, False])
def test_a_table_with_the_same_cells_says_so_and_digests_are_short(
    same: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = msgspec.structs.replace(TABLE.generated_from, code_version="another", policy=f"sha256:{'a1' * 32}")
    after = msgspec.structs.replace(TABLE, generated_from=made)
    if not same:
        after = edited(after, "offload", "none")
    paths = stored(TABLE, tmp_path / "a.json"), stored(after, tmp_path / "b.json")
    assert run_click(cli, ["compare", *map(str, paths)]) == Exit.OK
    said = capsys.readouterr().out
    assert ("Every cell is the same." in said) is same
    assert "sha256:a1a1a1a1a1a1..." in said
    assert max(map(len, said.splitlines())) < 200


def test_a_cell_that_a_spreadsheet_would_run_is_text(tmp_path: Path) -> None:
    before = stored(RECORD, tmp_path / "a.json")
    card = msgspec.structs.replace(RECORD.card, name="@SUM(A1)")
    after = stored(msgspec.structs.replace(RECORD, card=card).sealed(), tmp_path / "b.json")
    sheet = tmp_path / "changes.csv"
    assert run_click(cli, ["compare", str(before), str(after), "--csv", str(sheet)]) == Exit.OK
    assert "'@SUM(A1)" in sheet.read_text()


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, table = stored(RECORD, tmp_path / "record.json"), stored(TABLE, tmp_path / "table.json")
    cut = tmp_path / "cut.json"
    cut.write_text(record.read_text()[:100])
    assert run_click(cli, ["compare", str(record), str(table)]) == Exit.USAGE
    assert run_click(cli, ["compare", str(record), str(cut)]) == Exit.INVALID
    assert run_click(cli, ["compare", str(record)]) == Exit.USAGE
    for depth in (200, 900, 100_000):
        cut.write_text("[" * depth + "]" * depth)
        assert run_click(cli, ["compare", str(record), str(cut)]) == Exit.INVALID
    assert run_click(cli, ["compare", str(record), str(record), "--csv", str(record)]) == Exit.USAGE
    assert "cut.json" in capsys.readouterr().err
    assert record.read_text() == pretty_json(RECORD)


def test_comparing_loads_neither_torch_nor_pandas_until_a_sheet_is_asked_for(tmp_path: Path) -> None:
    path = stored(RECORD, tmp_path / "a.json")
    imported = imported_by("-m", "calibrate", "compare", str(path), str(path))
    assert "calibrate.record.compare" in imported
    assert not imported & {"torch", "numpy", "pandas", "rich"}
