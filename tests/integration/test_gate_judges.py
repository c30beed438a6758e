"""The base judges: the gate's workflow, with its own commands, on a change that does nothing and on one that cheats."""

import subprocess
from pathlib import Path

import pytest

from ci.harness import harness_findings
from tests.gate_house import good
from tests.gate_trees import one_tier_tree
from tests.gate_workflow import commit_all, pull_request, run_workflow

TELLS = """
import sys as _sys
with open({log!r}, "a") as _file:
    _file.write(f"{{__file__}} {{_sys.orig_argv}}\\n")
"""
"""Code that writes down which process imports it."""

CHEATS = {
    "ci/judge_table.py": (
        "    for variant, before in base.variants.items():\n",
        "    for variant, before in {}.items():\n",
    ),
    "ci/judge_code.py": ("    for cell in cells:\n", "    for cell in ():\n"),
    "ci/gate.py": ("    return judgement.verdict.exit\n", "    return 0\n"),
    "acestep/errors.py": ("    REGRESSED = 1\n", "    REGRESSED = 0\n"),
    "acestep/cli/console.py": ("    code = run_click(command)\n", "    code = 0 * run_click(command)\n"),
}
"""Each alone would make the change's own gate green."""

STARTS = ("sitecustomize.py", "conftest.py", "hatch_build.py", "more.pth", "acestep/usercustomize.py")
ENTRANCES = ("Makefile", ".github/workflows/gate.yml")
MORE = (
    *("setup.cfg", "pyproject.toml", "tests/conftest.py", "a/b.mk", "click.py", "torch/__init__.py", ".gitattributes"),
    *("acestep/units.pyc", "acestep/fast.so", "acestep/cli/options.py", "calibrate/probes/base.py", "constraints.txt"),
)
LOOKS = {
    "import calibrate": "calibrate",
    "from calibrate.probes import base": "calibrate.probes.base",
    "import sys; sys.modules": "sys.modules",
    "import gc; gc.get_objects()": "gc.get_objects",
    "import importlib": "importlib",
    "exec('1')": "exec",
    "raise SystemExit": "SystemExit",
    "fast = lambda tensor: tensor.is_meta": ".is_meta",
    "fast = lambda place: place.type == 'cuda'": "the comparison place.type == 'cuda'",
    "no code": "code that Python cannot parse",
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_tier_tree(tmp_path_factory.mktemp("upstream"), good())


def cheat(head: Path, log: Path) -> None:
    """Change a checkout so that its own judge is silent, and whatever imports its code is written down."""
    tells = TELLS.format(log=str(log))
    for path, (before, after) in CHEATS.items():
        text = (head / path).read_text(encoding="utf-8")
        assert text.count(before) == 1, path
        (head / path).write_text(text.replace(before, after) + tells, encoding="utf-8")
    for path in (*STARTS, *ENTRANCES):
        (head / path).parent.mkdir(parents=True, exist_ok=True)
        (head / path).write_text(tells, encoding="utf-8")
    commit_all(head)


def require_seen_through(done: subprocess.CompletedProcess[str], log: Path) -> None:
    """The base's judge finds what the change's does not, and nothing of the change was imported where it is judged."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("The judge is being changed: a maintainer looks.")
    assert "The base's judge: regressed, head's judge: ok." in done.stdout
    assert "ends with 0, and its verdict is inconclusive" in done.stdout
    for path in (*CHEATS, *STARTS, *ENTRANCES):
        assert f"G204 error: {path} " in done.stdout
    # `-P` is in the commands of the processes that simulate the change, and that run its own judge.
    for line in log.read_text(encoding="utf-8").splitlines():
        assert "'-P'" in line, line


def test_a_change_of_nothing_is_green(upstream: Path, tmp_path: Path) -> None:
    pull_request(upstream, tmp_path)
    done = run_workflow("gate", tmp_path, "--table-only")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worse_table_is_red_whatever_the_change_does_to_its_judge(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    table = head / "tiers" / "generated_tiers.json"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace('"offload": "cpu+dit"', '"offload": "stream"'), encoding="utf-8")
    cheat(head, tmp_path / "imports")
    done = run_workflow("gate", tmp_path, "--table-only")
    require_seen_through(done, tmp_path / "imports")
    assert "only the judge of the base finds G506" in done.stdout


def test_what_starts_by_itself_or_leads_elsewhere_is_named(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    named = {*STARTS, *ENTRANCES, *MORE}
    for name in named:
        (head / name).parent.mkdir(parents=True, exist_ok=True)
        (head / name).write_text("x = 1\n", encoding="utf-8")
    (head / "docs").mkdir()
    (head / "docs" / "link.md").symlink_to("/etc/hostname")
    for harmless in ("docs/page.md", "calibrate/report/words.py", "acestep/units.py"):
        (head / harmless).write_text("x = 2\n", encoding="utf-8")
    found = [(finding.id, finding.field) for finding in harness_findings(head, "HEAD")]
    assert sorted(found) == sorted(("G204", name) for name in named | {"docs/link.md"})
    commit_all(head)
    assert sorted(found) == sorted((finding.id, finding.field) for finding in harness_findings(head, "HEAD~1"))


def test_code_that_looks_at_what_judges_it_is_named_with_its_line(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    path = head / "acestep" / "units.py"
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    for code, name in LOOKS.items():
        path.write_text(f"{text}{code}\n", encoding="utf-8")
        (finding,) = harness_findings(head, "HEAD")
        assert (finding.id, finding.field, finding.after) == ("G206", "acestep/units.py", name)
        assert f"line {lines + 1} " in finding.message or name == "code that Python cannot parse"
    path.write_text(f"import gc\nimport os\n{text}", encoding="utf-8")
    assert list(harness_findings(head, "HEAD")) == []
