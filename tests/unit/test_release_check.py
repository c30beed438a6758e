"""A release is refused where its names disagree or its wheel lacks a file that the programs read."""

from pathlib import Path

import pytest

from acestep.errors import RunFailedError
from tests.command_lines import ROOT
from tools.release_check import COMMANDS, missing_from, newest_entry, require_one_version

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n## [1.2.2] - 2026-11-01\n"


def test_the_changelog_names_its_newest_release() -> None:
    assert newest_entry(CHANGELOG) == "1.2.3"
    assert newest_entry("# Changelog\n\n## [Unreleased]\n") == ""


def test_package_tag_and_changelog_name_one_version() -> None:
    require_one_version("1.2.3", "1.2.3", "v1.2.3")


@pytest.mark.parametrize(
    ("release", "entry", "tag"),
    [
        ("1.2.4", "1.2.3", "v1.2.4"),
        ("1.2.3", "1.2.3", "v1.2.4"),
        ("1.2.3", "1.2.3", "1.2.3"),
        ("1.2.3", "", "v1.2.3"),
    ],
)
def test_names_that_disagree_are_refused(release: str, entry: str, tag: str) -> None:
    with pytest.raises(RunFailedError, match=r"CHANGELOG\.md|the tag is"):
        require_one_version(release, entry, tag)


def everything() -> set[str]:
    files = [path for package in ("acestep", "calibrate") for path in (ROOT / package).rglob("*") if path.is_file()]
    tables = {f"acestep/data/{path.name}" for path in (ROOT / "tiers").glob("*_tiers.json")} | {
        "acestep/data/policy.json"
    }
    return {path.relative_to(ROOT).as_posix() for path in files} | tables


@pytest.mark.parametrize(
    "lost",
    [
        "acestep/ui/style.css",
        "acestep/ui/locales/ko.json",
        "acestep/data/generated_tiers.json",
        "acestep/data/policy.json",
        "acestep/py.typed",
        "calibrate/report/templates/record.html.j2",
        "calibrate/report/locales/ja.json",
        "acestep/checkpoints/load.py",
    ],
)
def test_a_file_that_the_wheel_lacks_is_named(lost: str) -> None:
    assert missing_from(everything()) == []
    assert missing_from(everything() - {lost}) == [lost]


def test_a_file_that_is_new_is_expected_in_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "acestep").mkdir()
    (tmp_path / "acestep" / "new.json").touch()
    assert "acestep/new.json" in missing_from(set(), tmp_path)


@pytest.mark.parametrize("command", ["plan", "tiers", "doctor", "generate --model tiny"])
def test_the_commands_of_a_new_user_are_tried(command: str) -> None:
    assert any(line.startswith(f"acestep {command}") for line in COMMANDS)
