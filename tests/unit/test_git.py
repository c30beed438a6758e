"""A commit is read as it was, and a foreign reference is never an option, a path or a traceback."""

from pathlib import Path

import pytest

from acestep.errors import NotMeasuredError
from calibrate.git import GitError, commit_of, folder_at, git
from ci.promises import base_promises
from tests.gate_house import committed


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tiers").mkdir()
    (tmp_path / "tiers" / "table.json").write_text("before")
    committed(tmp_path)
    return tmp_path


def test_a_folder_is_there_as_it_was_at_the_commit_and_gone_afterwards(checkout: Path) -> None:
    (checkout / "tiers" / "table.json").write_text("after")
    (checkout / "tiers" / "new.json").write_text("new")
    with folder_at(checkout, "HEAD", "tiers") as folder:
        assert [path.name for path in (folder / "tiers").iterdir()] == ["table.json"]
        assert (folder / "tiers" / "table.json").read_text() == "before"
    assert not folder.exists()
    with folder_at(checkout, "HEAD", "elsewhere") as folder:
        assert list(folder.iterdir()) == []


REFERENCES = ["no-such-branch", "--output=/tmp/x", "-h", "", "HEAD:tiers", "HEAD..HEAD", "^HEAD", "HEAD~7"]


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_that_names_no_commit_is_told_to_the_report_and_to_the_gate_in_the_same_words(
    checkout: Path, reference: str
) -> None:
    with pytest.raises(GitError, match="git knows no commit"):
        commit_of(checkout, reference)
    with pytest.raises(NotMeasuredError, match=r"must be a commit of .*: git knows no commit"):
        base_promises(checkout, reference)


def test_without_git_the_sentence_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    for ask in (lambda: commit_of(checkout, "HEAD"), lambda: git(checkout, "status")):
        with pytest.raises(GitError, match="git is not installed"):
            ask()


def test_a_command_that_fails_says_what_git_said(checkout: Path) -> None:
    with pytest.raises(GitError, match=r"git cat-file failed: .*nothing"):
        git(checkout, "cat-file", "blob", "nothing")


def test_a_base_that_reaches_outside_its_folder_is_refused(checkout: Path) -> None:
    (checkout / "tiers" / "outside").symlink_to("/etc")
    committed(checkout)
    with pytest.raises(GitError, match="cannot be read"), folder_at(checkout, "HEAD", "tiers"):
        pass
