"""The tiers folder of a change holds plain files: a link or a submodule in it is red in the change that brings it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ci.findings import GateVerdict
from ci.judge import judge
from ci.tiers_folder import folder_findings
from tests.gate_house import TODAY, committed, good

ROOT = Path(__file__).parents[2]


def _link(tiers: Path) -> None:
    (tiers / "measurements" / "more.json").symlink_to(tiers / "policy.json")


def _broken_link(tiers: Path) -> None:
    (tiers / "measurements" / "more.json").symlink_to("nowhere")


def _folder_link(tiers: Path) -> None:
    (tiers / "schema").symlink_to("/etc")


def _linked_records(tiers: Path) -> None:
    (tiers / "measurements").rename(tiers.parent / "elsewhere")
    (tiers / "measurements").symlink_to("../elsewhere")


def _whole_link(tiers: Path) -> None:
    tiers.rename(tiers.parent / "elsewhere")
    tiers.symlink_to("elsewhere")


def _submodule(tiers: Path) -> None:
    (tiers / "schema").mkdir()
    entry = f"160000,{'7' * 40},tiers/schema"
    subprocess.run(["git", "-C", str(tiers), "update-index", "--add", "--cacheinfo", entry], check=True)  # noqa: S607


def _pipe(tiers: Path) -> None:
    os.mkfifo(tiers / "measurements" / "pipe.json")


def _named(name: str) -> Callable[[Path], None]:
    def change(tiers: Path) -> None:
        (tiers / name).parent.mkdir(exist_ok=True)
        (tiers / name).write_text("{}", encoding="utf-8")

    return change


CHANGES = {
    "a link": _link,
    "a link to nothing": _broken_link,
    "a link to a folder": _folder_link,
    "records behind a link": _linked_records,
    "the folder is a link": _whole_link,
    "a submodule": _submodule,
    "a pipe": _pipe,
    **{
        f"a file named {name!r}": _named(name)
        for name in (
            *("measurements/a b.json", "measurements/-o.json", "measurements/x\ny.json", "measurements/é.json"),
            *("measurements/FAKE.json", ".gitattributes", "measurements/x.json.bak", "measurements/run.py"),
            *("more/x.json", "conftest.py", "measurements/.x.json", ".x/more.py", f"measurements/{'x' * 120}.json"),
        )
    },
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[name.encode("unicode_escape").decode() for name in CHANGES])
def test_anything_but_a_plain_file_is_refused_by_the_change_that_brings_it(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    good().written(tmp_path)
    committed(tmp_path)
    change(tmp_path / "tiers")
    judgement = judge(tmp_path, "HEAD", None, TODAY, table_only=True, progress=lambda _: None)
    assert judgement.verdict is GateVerdict.INVALID
    assert {finding.id for finding in judgement.findings} == {"G107"}


@pytest.mark.parametrize("name", ["measurements/.x.json.part", ".DS_Store", "measurements/.x.json.swp"])
def test_a_hidden_file_that_nothing_reads_is_refused_only_where_git_tracks_it(name: str, tmp_path: Path) -> None:
    tiers = good().written(tmp_path).parent
    committed(tmp_path)
    _named(name)(tiers)
    assert list(folder_findings(tiers)) == []
    subprocess.run(["git", "-C", str(tiers), "add", "--force", name], check=True)  # noqa: S607
    assert [finding.field for finding in folder_findings(tiers)] == [f"tiers/{name}"]


def test_our_own_folder_is_plain() -> None:
    assert list(folder_findings(ROOT / "tiers")) == []


@pytest.mark.parametrize("link", [False, True])
def test_a_file_named_like_the_base_is_never_the_base(
    link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a commit that is there, nor for one that was not fetched."""
    table = good().written(tmp_path)
    committed(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    for base, known in ((commit, True), ("7" * 40, False)):
        if link:
            (tmp_path / base).symlink_to(table)
        else:
            (tmp_path / base).write_bytes(b"{}" if known else table.read_bytes())
        judgement = judge(tmp_path, base, None, TODAY, table_only=True, progress=lambda _: None)
        # A link is a finding of its own, wherever it leads.
        assert {finding.id for finding in judgement.findings} <= ({"G204"} if known else {"G201"})
        assert judgement.compared.tiers == (8 if known else 0)
