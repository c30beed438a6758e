"""A change cannot hide from the judge: not behind names, git's own switches, the environment, or another place."""

import subprocess
from pathlib import Path

import pytest

from calibrate.git import GitError, commit_of, git
from ci.harness import DECIDING, harness_findings
from tests.gate_house import committed

ROOT = Path(__file__).parents[2]
FILES = ("acestep/knobs.py", "acestep/engine/denoise.py", "acestep/request.py", "ci/judge.py", "docs/page.md")


def _write(tree: Path, name: str, text: str = "x = 2\n") -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(text, encoding="utf-8")


def _git(tree: Path, *arguments: str) -> str:
    named = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    command = ["git", "-C", str(tree), *named, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        _write(tmp_path / "tree", name, "x = 1\n")
    committed(tmp_path / "tree")
    return tmp_path / "tree"


def _found(tree: Path, base: str = "HEAD") -> list[tuple[str, str]]:
    return [(finding.id, finding.field) for finding in harness_findings(tree, base)]


ODD_NAMES = (
    *("acestep/Knobs.py", "Acestep/knobs.py", "ACESTEP/engine/more.py", "ci/Judge.py"),
    *("acestep/aux.py", "acestep/con", "docs/-o.md", "docs/page.", "docs/nul.md"),
)
STARTS = (
    *(".envrc", ".vscode/tasks.json", ".devcontainer/devcontainer.json", ".coveragerc", ".pre-commit-config.yaml"),
    *(
        ".gitattributes",
        "acestep/.gitmodules",
        ".githooks/pre-commit",
        ".husky/pre-push",
        ".pdbrc",
        ".idea/startup.xml",
    ),
    *(".a.pth", ".pytest.ini", ".x/conftest.py", ".x/y.so", "acestep/.x.py", "acestep/.x.pyc", "acestep/.x.json"),
    *("pytest.toml", "mypy.ini", "ruff.toml", "noxfile.py", "uv.lock", "Dockerfile", "MAKEFILE", "Setup.py"),
    *("acestep.dist-info/entry_points.txt", "acestep.egg-info/x.txt", "acestep/x.pyw", "torch.zip", "Torch.PY"),
    *("tiers/measurements/.x.json", ".ci/more", ".github/more", ".idea/startup.xml"),
)
IDLE = (
    *(".idea/a", ".vscode/settings.json", ".coverage", ".python-version", "acestep/.DS_Store", "acestep/.a.py.swp"),
    *("tiers/measurements/.x.json.part", "ci/.DS_Store", "docs/.x", "acestep/.x/y.json"),
    *("acestep/.cache/.gitignore", "tests/.x/.gitkeep"),
)


@pytest.mark.parametrize("name", [*ODD_NAMES, *STARTS])
def test_a_name_that_means_something_elsewhere_is_for_a_maintainer(name: str, tree: Path) -> None:
    _write(tree, name)
    assert _found(tree) == [("G204", name)]


@pytest.mark.parametrize("name", IDLE)
def test_a_hidden_file_that_nothing_runs_or_reads_is_named_only_where_a_change_brings_it(name: str, tree: Path) -> None:
    _write(tree, name)
    assert _found(tree) == []
    _git(tree, "add", "--force", name)
    assert _found(tree) == [("G204", name)]
    _git(tree, "commit", "-qm", "a hidden file")
    assert _found(tree, "HEAD~1") == [("G204", name)]


def test_a_hidden_file_that_nothing_runs_or_reads_may_have_any_name(tree: Path) -> None:
    _write(tree, ".idea/my words.xml")
    assert _found(tree) == []


def test_a_hidden_link_is_named_whatever_it_is_called(tree: Path) -> None:
    (tree / ".x").symlink_to("nowhere")
    assert _found(tree) == [("G204", ".x")]


def test_only_a_file_that_can_start_code_is_said_to_run(tree: Path) -> None:
    said = "runs, or changes what runs, without being asked for"
    for name, runs in (("docs/.x", False), ("Makefile", True), ("docs/a.pth", True)):
        _write(tree, name)
        _git(tree, "add", name)
        (finding,) = (finding for finding in harness_findings(tree, "HEAD") if finding.field == name)
        assert (said in finding.message) is runs
        assert ("is a hidden file" in finding.message) is not runs


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize(("old", "new"), [("docs/page.md", "docs/Page.md"), ("docs", "Docs")])
def test_a_file_or_folder_may_be_renamed_in_upper_or_lower_case(old: str, new: str, staged: bool, tree: Path) -> None:
    if staged:
        _git(tree, "mv", old, new)
    else:
        (tree / old).rename(tree / new)
    assert _found(tree) == []
    _git(tree, "add", "-A")
    _git(tree, "commit", "-qm", "renamed")
    assert _found(tree, "HEAD~1") == []
    _write(tree, "docs/page.md", "again\n")
    assert ("G204", "docs/page.md") in _found(tree, "HEAD~1")


def test_a_file_that_is_gone_again_differs_from_none(tree: Path) -> None:
    _write(tree, "docs/Page.md")
    _git(tree, "add", "-A")
    assert _found(tree) == [("G204", "docs/Page.md")]
    (tree / "docs" / "Page.md").unlink()
    _write(tree, "docs/page.md", "another\n")
    assert _found(tree) == []


def test_a_new_list_of_what_git_ignores_is_none_but_hides_no_code(tree: Path) -> None:
    _write(tree, ".gitignore", "acestep/engine/fast.py\n__pycache__/\nvenv/\n")
    _write(tree, "acestep/__pycache__/knobs.pyc")
    _write(tree, "venv/conftest.py")
    assert _found(tree) == []
    _write(tree, "acestep/engine/fast.py", "import sys\nsys.modules\n")
    _write(tree, "ci/fast.py")
    assert _found(tree) == [("G206", "acestep/engine/fast.py"), ("G204", "ci/fast.py")]


@pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
def test_what_git_is_told_not_to_look_at_is_named(mark: str, tree: Path) -> None:
    _write(tree, "ci/judge.py")
    assert _found(tree) == [("G204", "ci/judge.py")]
    _git(tree, "update-index", mark, "ci/judge.py")
    assert _found(tree) == [("G204", "ci/judge.py")]


def test_a_commit_is_what_its_id_says_whatever_replaces_it(tree: Path) -> None:
    base = _git(tree, "rev-parse", "HEAD")
    _write(tree, "ci/judge.py")
    _git(tree, "commit", "-qam", "another judge")
    _git(tree, "replace", base, "HEAD")
    assert _git(tree, "show", f"{base}:ci/judge.py") == "x = 2"
    assert git(tree, "show", f"{base}:ci/judge.py") == b"x = 1\n"
    assert _found(tree, base) == [("G204", "ci/judge.py")]


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_git_reads_the_repository_that_is_named(
    variable: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    _write(other, "page.md")
    committed(other)
    place = {"GIT_DIR": "", "GIT_INDEX_FILE": "index", "GIT_OBJECT_DIRECTORY": "objects"}[variable]
    commit = commit_of(tree, "HEAD")
    monkeypatch.setenv(variable, str(other / ".git" / place))
    assert commit_of(tree, "HEAD") == commit
    assert _found(tree) == []
    with pytest.raises(GitError):
        commit_of(tree, "no-such-commit")


def _numbers(text: str) -> str:
    return f"MAX_LYRIC_TOKENS = {text}\nOTHER = 1\n"


@pytest.mark.parametrize(
    "after",
    [
        _numbers("1_024"),
        _numbers("4_096"),
        "OTHER = 1\n",
        _numbers("2_048") + "MAX_LYRIC_TOKENS //= 2\n",
        _numbers("1_024") + "def f():\n    MAX_LYRIC_TOKENS = 2_048\n",
        "MAX_LYRIC_TOKENS: int = 1_024\n",
        "(MAX_LYRIC_TOKENS := 1_024)\n",
        "no code\n",
        None,
    ],
)
def test_a_number_that_decides_what_certifies_is_judged_by_its_name(after: str | None, tree: Path) -> None:
    _write(tree, "acestep/request.py", _numbers("2_048"))
    _git(tree, "commit", "-qam", "a longest prompt")
    _write(tree, "acestep/request.py", _numbers("2_048").replace("OTHER = 1", "OTHER = 2"))
    assert _found(tree) == []
    if after is None:
        (tree / "acestep" / "request.py").unlink()
    else:
        _write(tree, "acestep/request.py", after)
    (finding,) = (finding for finding in harness_findings(tree, "HEAD") if finding.id == "G204")
    assert (finding.field, finding.before) == ("acestep/request.py", "2048")
    assert "MAX_LYRIC_TOKENS" in finding.message


def test_the_numbers_that_decide_are_there() -> None:
    for path, names in DECIDING.items():
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        assert [name for name in names if not any(line.startswith(f"{name} = ") for line in lines)] == []


OF_SONGS: dict[str, str] = {
    "import time; time.monotonic()": "time.monotonic",
    "from time import perf_counter": "time.perf_counter",
    "import os; os.getcwd()": "os.getcwd",
    "import os.path; os.path.exists('x')": "os.path",
    "from pathlib import Path": "pathlib.Path",
    "fast = lambda path: path.exists()": ".exists",
    "fast = lambda path: path.read_text()": ".read_text",
    "from itertools import count": "itertools.count",
    "fast = lambda request: request.language == 'ja'": ".language",
    "fast = lambda request: getattr(request, 'seed')": ".seed",
    "fast = lambda latents: latents.cpu()": ".cpu",
    "fast = lambda latents: latents.to('cpu')": '"cpu"',
    "fast = lambda latents: id(latents)": "id",
    "import gc; gc.isenabled()": "gc.isenabled",
    "import torch; torch.is_inference_mode_enabled()": "torch.is_inference_mode_enabled",
    "import torch; torch.get_num_threads()": "torch.get_num_threads",
    "from torch import rand": "torch.rand",
    "import logging; logging.getLogger().isEnabledFor(1)": ".isEnabledFor",
    "from threading import current_thread": "threading.current_thread",
    "from click import get_current_context": "click.get_current_context",
}
EVERYWHERE: dict[str, str] = {
    "import pickle": "pickle",
    "import posix": "posix",
    "import platform": "platform",
    "from socket import gethostname": "socket.gethostname",
    "import torch; torch._C._len_torch_dispatch_stack()": "torch._C._len_torch_dispatch_stack",
    "from torch.utils import _python_dispatch": "torch.utils._python_dispatch",
    "import torch; torch.load('x')": "torch.load",
    "import torch; torch.library.custom_op": "torch.library.custom_op",
    "from types import FunctionType": "types.FunctionType",
    "import io; io.open('x')": "io.open",
    "compile('1', '', 'eval')": "compile",
    "fast = lambda x: x.is_pinned()": ".is_pinned",
}


@pytest.mark.parametrize("code", [*OF_SONGS, *EVERYWHERE])
def test_what_makes_a_probe_another_run_than_a_song_is_named_where_songs_are_made(code: str, tree: Path) -> None:
    _write(tree, "acestep/engine/denoise.py", f"x = 1\n{code}\n")
    named = {finding.after for finding in harness_findings(tree, "HEAD")}
    assert (OF_SONGS | EVERYWHERE)[code] in named
    _write(tree, "acestep/engine/denoise.py", "x = 1\n")
    _write(tree, "acestep/knobs_of_page.py", f"x = 1\n{code}\n")
    assert bool(list(harness_findings(tree, "HEAD"))) is (code in EVERYWHERE)


def test_a_name_that_a_file_uses_already_is_named_where_it_is_used_once_more(tree: Path) -> None:
    _write(tree, "acestep/engine/denoise.py", "import os\nx = os.environ\ny = 1\n")
    _git(tree, "commit", "-qam", "reads the environment")
    _write(tree, "acestep/engine/denoise.py", "import os\ny = 2\n\nx = os.environ\n")
    assert _found(tree) == []
    _write(tree, "acestep/engine/denoise.py", "import os\nx = os.environ\ny = 'CI' in os.environ\n")
    (finding,) = harness_findings(tree, "HEAD")
    assert (finding.id, finding.after) == ("G206", "os.environ")
    assert "line 3 " in finding.message


READS_A_VALUE = "def ready(x):\n    return x.item()\n"
MAKES = "def make(x):\n    return {}\n"


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (READS_A_VALUE + MAKES.format("x"), MAKES.format("x.item()"), 2),
        (READS_A_VALUE + MAKES.format("x"), MAKES.format("x.item()") + READS_A_VALUE.replace("x.item()", "x"), 2),
        (READS_A_VALUE, "class Song:\n    def ready(self, x):\n        return x.item()\n", 3),
        (READS_A_VALUE, "flag = x.item()\n", 1),
    ],
    ids=["another function", "exchanged between functions", "a method of the same name", "outside of all functions"],
)
def test_a_new_use_is_named_also_where_another_is_taken_out_elsewhere_in_the_file(
    before: str, after: str, line: int, tree: Path
) -> None:
    _write(tree, "acestep/engine/denoise.py", before)
    _git(tree, "commit", "-qam", "reads a value")
    _write(tree, "acestep/engine/denoise.py", after)
    (finding,) = harness_findings(tree, "HEAD")
    assert (finding.id, finding.after) == ("G206", ".item")
    assert f"line {line} " in finding.message


def test_a_whole_function_may_move_in_its_file(tree: Path) -> None:
    _write(tree, "acestep/engine/denoise.py", READS_A_VALUE + MAKES.format("x"))
    _git(tree, "commit", "-qam", "reads a value")
    _write(tree, "acestep/engine/denoise.py", MAKES.format("x + 1") + READS_A_VALUE)
    assert _found(tree) == []
