"""What a pull request changes: every value, worst first, with its evidence, in a form no text can break out of."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acestep.cli.console import run_click
from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.tiers import TierTable
from calibrate.cli import cli as calibrate
from calibrate.files import pretty_json
from calibrate.report import cli as report_cli
from calibrate.report.marks import short
from calibrate.report.pull_request import MOST_COMMENT_CHARACTERS, TABLE_PATH, _within, code, pull_request_text
from tests.guides import on_a_card, simulated, sources, thinking

ROOT = Path(__file__).parents[2]
PLAIN = sources(simulated())
BASE = "main"
GIT = shutil.which("git") or "git"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run([GIT, "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose branch `main` has a table without language models."""
    (tmp_path / "tiers" / "measurements").mkdir(parents=True)
    (tmp_path / "tiers" / "policy.json").write_bytes((ROOT / "tiers" / "policy.json").read_bytes())
    (tmp_path / "tiers" / "measurements" / "formula.json").write_text(pretty_json(simulated()), encoding="utf-8")
    store(tmp_path, PLAIN.table)
    git(tmp_path, "init", "-q", "-b", BASE)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "base")
    monkeypatch.setattr(report_cli, "_CHECKOUT", tmp_path)
    # Drawing is tested elsewhere, and would take most of the time here.
    monkeypatch.setattr("calibrate.report.pull_request.rendered", lambda _: {"docs/plots/vram-turbo.svg": "<svg/>"})
    return tmp_path


def store(checkout: Path, table: TierTable | dict[str, Any]) -> None:
    (checkout / TABLE_PATH).write_text(pretty_json(table), encoding="utf-8")


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(pretty_json(PLAIN.table))
    change(document["variants"]["turbo"]["tiers"])
    return document


def rows(text: str) -> list[list[str]]:
    """The cells of the table of changes, without its heading."""
    first = next((n for n, line in enumerate(text.splitlines()) if line.startswith("| Where |")), None)
    if first is None:
        return []
    found = []
    for line in text.splitlines()[first + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def test_the_same_table_changes_nothing(checkout: Path) -> None:
    text = pull_request_text(checkout, BASE)
    assert "No tier changes." in text
    assert rows(text) == []


def _shorter(tiers: Any) -> None:
    tier = tiers[3]
    entries = tier["frontier"]["without_lm"]
    for batch in entries:
        entries[batch] = min(entries[batch], 540)
    tier["max_duration_s"]["without_lm"] = entries["1"]
    tier["max_batch"]["without_lm"] = max(int(n) for n in entries if entries[n] == entries["1"])


def _more_offload(tiers: Any) -> None:
    tiers[-1]["offload"] = "cpu+dit"


def _quantized(tiers: Any) -> None:
    tiers[-1]["quantization"] = "int8"


def _weaker_evidence(tiers: Any) -> None:
    tiers[-1]["evidence"]["frontier"]["kind"] = "estimated"


@pytest.mark.parametrize(
    ("change", "tier", "field"),
    [
        (_shorter, "tier4", "frontier.without_lm.1"),
        (_more_offload, "unlimited", "offload"),
        (_quantized, "unlimited", "quantization"),
    ],
)
def test_what_an_owner_loses_is_worse_and_its_undoing_better(
    checkout: Path, change: Callable[[Any], None], tier: str, field: str
) -> None:
    store(checkout, changed(change))
    lost = rows(pull_request_text(checkout, BASE))
    assert lost
    found = next(row for row in lost if row[:2] == [f"`turbo {tier}`", f"`{field}`"])
    assert found[4] == "worse"
    git(checkout, "commit", "-qam", "head")
    store(checkout, PLAIN.table)
    gained = rows(pull_request_text(checkout, BASE))
    back = next(row for row in gained if row[:2] == found[:2])
    assert (back[2], back[3], back[4]) == (found[3], found[2], "better")


def test_losses_come_before_gains(checkout: Path) -> None:
    def both(tiers: Any) -> None:
        _shorter(tiers)
        tiers[0]["lm_songs_per_pass"] = {}
        tiers[0]["frontier"]["without_lm"] = {"1": 600, "2": 600, "4": 600, "8": 600}
        tiers[0]["max_duration_s"]["without_lm"], tiers[0]["max_batch"]["without_lm"] = 600, 8

    store(checkout, changed(both))
    ways = [row[4] for row in rows(pull_request_text(checkout, BASE))]
    assert set(ways) == {"worse", "better"}
    assert ways == sorted(ways, key=("worse", "better").index)


def test_another_kind_of_evidence_is_told(checkout: Path) -> None:
    store(checkout, changed(_weaker_evidence))
    ((place, field, before, now, _, found),) = rows(pull_request_text(checkout, BASE))
    assert (place, field, before, now) == ("`turbo unlimited`", "`evidence.frontier`", "simulated", "estimated")
    assert short(simulated().digest) in found


def test_language_models_and_a_new_variant_are_told_with_their_evidence(checkout: Path) -> None:
    store(checkout, thinking(PLAIN).table)
    text = pull_request_text(checkout, BASE)
    found = rows(text)
    models = [row for row in found if row[1] == "`lm_models`"]
    assert models
    assert {row[4] for row in models} == {"better"}
    assert all(short(simulated().digest) in row[5] for row in models)
    assert any("estimated" in row[5] for row in models)
    assert ["`xl-turbo tier1`", "—", "—", "—", "added"] in [row[:5] for row in found]
    assert any(row[2] == "does not fit" and row[3] == "8 min" for row in found)


def test_a_variant_and_a_tier_that_are_gone_are_worse(checkout: Path) -> None:
    store(checkout, thinking(PLAIN).table)
    git(checkout, "commit", "-qam", "more")
    store(checkout, PLAIN.table)
    found = rows(pull_request_text(checkout, BASE))
    assert ["`xl-turbo tier1`", "—", "—", "—", "removed", "—"] in found


def test_records_that_came_and_went_are_listed(checkout: Path) -> None:
    (checkout / "tiers" / "measurements" / "card.json").write_text(pretty_json(on_a_card()), encoding="utf-8")
    store(checkout, sources(simulated(), on_a_card()).table)
    text = pull_request_text(checkout, BASE)
    assert re.search(rf"● `{short(on_a_card().digest)}` .*new \|", text)
    assert re.search(rf"◐ `{short(simulated().digest)}` .*there before \|", text)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "card")
    store(checkout, PLAIN.table)
    assert re.search(rf"`{short(on_a_card().digest)}` .*gone \|", pull_request_text(checkout, BASE))


def test_the_commands_measure_the_records_that_are_there(checkout: Path) -> None:
    text = pull_request_text(checkout, BASE)
    assert "python -m calibrate run --device simulated --variant turbo" in text
    assert "-o tiers/measurements/formula.json" in text
    for line in ("calibrate merge", "calibrate render", f"report --pr --base {BASE}", f"ci.gate --base {BASE}"):
        assert line in text
    assert "docs/plots/vram-turbo.svg" in text


def test_a_chosen_name_runs_nothing_where_the_commands_are_pasted(checkout: Path) -> None:
    folder, chosen = checkout / "tiers" / "measurements", "a;$(touch x)&.json"
    (folder / "formula.json").rename(folder / chosen)
    git(checkout, "branch", "b;$(id)")
    text = pull_request_text(checkout, "b;$(id)")
    commands = text.partition("```bash\n")[2].partition("\n```")[0].splitlines()
    words = [shlex.split(command) for command in commands]
    assert words[0][-1] == f"tiers/measurements/{chosen}"
    assert [line[-1] for line in words if "--base" in line] == ["b;$(id)", "b;$(id)"]


def test_a_plot_that_was_not_rendered_yet_is_named(checkout: Path) -> None:
    assert "Not rendered from this table yet: `docs/plots/vram-turbo.svg`" in pull_request_text(checkout, BASE)


def test_the_command_prints_the_text_and_nothing_else_on_stdout(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(calibrate, ["report", "--pr", "--base", BASE]) == Exit.OK
    assert capsys.readouterr().out == pull_request_text(checkout, BASE)


@pytest.mark.parametrize(
    "reference", ["no-such-branch", "--output=/tmp/x", "-h", "", "main:tiers", "main..main", "^main"]
)
def test_a_reference_that_git_does_not_know_is_a_usage_error(checkout: Path, reference: str) -> None:
    with pytest.raises(UsageError, match="git knows no commit"):
        pull_request_text(checkout, reference)


def test_a_folder_that_is_no_repository_knows_no_commit(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "moved")
    with pytest.raises(UsageError):
        pull_request_text(checkout, BASE)


def test_a_first_table_is_all_new(checkout: Path) -> None:
    git(checkout, "rm", "-q", "--cached", TABLE_PATH)
    git(checkout, "commit", "-qm", "no table")
    text = pull_request_text(checkout, BASE)
    assert "There was no table" in text
    assert {row[4] for row in rows(text)} == {"added"}
    assert len(rows(text)) > len(PLAIN.table.variants)


@pytest.mark.parametrize("text", ["", "[]", '{"variants": []}', "{", '{"variants": {"turbo": NaN}}'])
def test_a_base_that_is_no_table_is_invalid_or_new_but_never_unchanged(checkout: Path, text: str) -> None:
    (checkout / TABLE_PATH).write_text(text)
    git(checkout, "commit", "-qam", "spoiled")
    store(checkout, PLAIN.table)
    if text:
        with pytest.raises(InvalidInputError, match=f"{BASE}:{TABLE_PATH}"):
            pull_request_text(checkout, BASE)
    else:
        assert "There was no table" in pull_request_text(checkout, BASE)


HOSTILE = ("a | b", "`x`", "@everyone", "<img src=x>", "[click](//evil)", "a\nb", "# title", "${x}", "\u202e")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_the_base_stays_in_its_cell(checkout: Path, text: str) -> None:
    def spoil(tiers: Any) -> None:
        tiers[0]["label"] = text

    store(checkout, changed(spoil))
    git(checkout, "commit", "-qam", "hostile")
    store(checkout, PLAIN.table)
    found = rows(pull_request_text(checkout, BASE))
    assert [len(row) for row in found] == [6] * len(found)
    cell = next(row[2] for row in found if row[1] == "`label`")
    assert cell == code(text)
    assert cell.count("`") == 2
    assert "\n" not in cell
    assert "|" not in cell


def test_a_text_that_is_too_long_is_cut_between_lines_and_says_so() -> None:
    line = "x" * 99 + "\n"
    cut = _within(line * 1000, MOST_COMMENT_CHARACTERS)
    assert len(cut) <= MOST_COMMENT_CHARACTERS
    assert set(cut.split("\n\n")[0].split("\n")) == {"x" * 99}
    assert "Cut here" in cut
    assert _within(line, MOST_COMMENT_CHARACTERS) == line
