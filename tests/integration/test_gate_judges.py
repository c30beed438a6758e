"""The base judges: the gate's workflow, with its own commands, on a change that does nothing and on one that cheats."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acestep.errors import NotMeasuredError
from ci import two_judges
from ci.findings import Finding, GateVerdict
from ci.harness import JUDGING, UNSEEN, harness_findings
from ci.head_channel import head_environment
from ci.judge import Compared, Judgement, judge
from tests.gate_house import TODAY, good
from tests.gate_trees import ROOT, one_tier_tree
from tests.gate_workflow import commit_all, pull_request, run_workflow

TELLS = """
import sys as _sys
with open({log!r}, "a") as _file:
    _file.write(f"{{__file__}} {{_sys.orig_argv}}\\n")
"""
"""Code that writes down which process imports it."""

NO_OPTIONS = two_judges.GateOptions(judging=(), spreading=())

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
    "import threading; threading.Thread": "threading.Thread",
    "from concurrent.futures import ThreadPoolExecutor": "concurrent.futures.ThreadPoolExecutor",
    "import _thread": "_thread",
    "fast = lambda model: model == 'dummy'": '"dummy"',
    "fast = lambda components: components.is_noise": ".is_noise",
    "import calibrate": "calibrate",
    "from calibrate.probes import base": "calibrate.probes.base",
    "import sys; sys.modules": "sys.modules",
    "import gc; gc.get_objects()": "gc.get_objects",
    "import gc; gc.freeze()": "gc.freeze",
    "real = lambda card: card.uuid": ".uuid",
    "real = lambda card: not card.imagined": ".imagined",
    "real = lambda card: card.driver": ".driver",
    "import importlib": "importlib",
    "exec('1')": "exec",
    "raise SystemExit": "SystemExit",
    "fast = lambda tensor: tensor.is_meta": ".is_meta",
    "fast = lambda place: place.type == 'cuda'": "the comparison place.type == 'cuda'",
    "import sys as s; s.modules": "sys.modules",
    "import sys; s = sys; s.modules": "sys.modules",
    "import sys; getattr(sys, 'modules')": "sys.modules",
    "import torch; torch.sys.modules": "torch.sys.modules",
    "import sys; sys._current_frames()": "sys._current_frames",
    "import sys; sys.orig_argv": "sys.orig_argv",
    "from traceback import extract_stack": "traceback.extract_stack",
    "import traceback as t": "traceback",
    "import os as o; o._exit(0)": "os._exit",
    "import os; os.getenv('PYTHONPATH')": "os.getenv",
    "from os import environ as e": "os.environ",
    "from os import *": "os.*",
    "import subprocess": "subprocess",
    "import runpy": "runpy",
    "from pkgutil import resolve_name": "pkgutil.resolve_name",
    "import torch; torch.cuda.is_available()": "torch.cuda.is_available",
    "fast = lambda x: getattr(x, 'is_meta')": ".is_meta",
    "fast = lambda x, name: getattr(x, name)": "getattr with a computed name",
    "fast = lambda x: x.f().is_cuda": ".is_cuda",
    "fast = lambda x: x.device == 'cuda'": "the comparison x.device == 'cuda'",
    "fast = lambda x: x.device in ()": "the comparison x.device in ()",
    "fast = lambda x: {'cuda': 1}[x.device]": "the look-up {'cuda': 1}[x.device]",
    "fast = lambda x: str(x.device)": "the text str(x.device)",
    "fast = lambda x: f'{x.device}'": "the text of x.device",
    "fast = lambda x: f(x.device.type)": "the read x.device.type",
    "kind = place.type": "the read place.type",
    "match place.type:\n    case _: pass": "the comparison match place.type",
    "fast = lambda x: getattr(x.device, 'type')": "the read getattr(x.device, 'type')",
    "fast = lambda x: getattr(x, 'is_' + 'meta')": "getattr with a computed name",
    "fast = lambda d: {'cuda': 1}[d.type]": "the look-up {'cuda': 1}[d.type]",
    "no code": "code that Python cannot parse",
    f"deep = {'-' * 100_000}1": "code that Python cannot parse",
    f"long = {'1 + ' * 20_000}1": "code that Python cannot parse",
}
"""Code, and what is named of it."""

HARMLESS = """
import gc
import os
import sys
print(sys.platform, os.path.sep, sys.stderr, gc.collect())
fast = lambda x, y: x.to(y.device).modules()
"""
"""Code that looks at nothing that judges it."""


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
    assert done.stdout.startswith("The judge is being changed: a maintainer has to review it.")
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


def judged_where_python_searches_the_change_first(
    upstream: Path, place: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """The gate's answer about a worse table with a judge that does not see it, as that judge's checkout gives it."""
    _, head = pull_request(upstream, place)
    for path, before, after in (
        ("tiers/generated_tiers.json", '"offload": "cpu+dit"', '"offload": "stream"'),
        ("ci/judge_table.py", *CHEATS["ci/judge_table.py"]),
    ):
        text = (head / path).read_text(encoding="utf-8")
        (head / path).write_text(text.replace(before, after), encoding="utf-8")
    command = [sys.executable, "-m", "ci.gate", "--base", "HEAD", "--table-only", "--json", *options]
    environment = {**os.environ, "PYTHONPATH": str(head), "PYTHONSAFEPATH": "1", "GITHUB_ACTIONS": "true"}
    written = {"GITHUB_STEP_SUMMARY": str(place / "summary"), "GITHUB_OUTPUT": str(place / "output")}
    return subprocess.run(command, cwd=head, env=environment | written, capture_output=True, text=True, check=False)


def test_the_base_judges_whatever_python_searches_first(upstream: Path, tmp_path: Path) -> None:
    done = judged_where_python_searches_the_change_first(upstream, tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (1, "regressed"), done.stderr
    assert [judge["verdict"] for judge in document["judges"]] == ["regressed", "ok"]
    assert "verdict=regressed" in (tmp_path / "output").read_text(encoding="utf-8")
    assert "::error title=G205" in done.stderr


def test_a_change_that_judges_itself_says_so(upstream: Path, tmp_path: Path) -> None:
    done = judged_where_python_searches_the_change_first(upstream, tmp_path, "--tree", ".")
    messages = [finding["message"] for finding in json.loads(done.stdout)["findings"] if finding["id"] == "G204"]
    assert done.returncode == 4
    assert any("so this tree judged itself" in message for message in messages)


JUDGE_CHANGED = Finding(id="G204", field="ci/gate.py", message="ci/gate.py decides what is judged.")
LOSS = Finding(id="G502", variant="turbo", tier="tier5", field="max_batch.with_lm", message="A batch is smaller.")


@pytest.mark.parametrize("verdict", [GateVerdict.REGRESSED, GateVerdict.INCONCLUSIVE])
def test_a_rule_that_only_the_judge_of_the_change_has_is_a_difference(
    verdict: GateVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Finding(id="G999", field="ci", message="A rule that the base does not have.")
    theirs = two_judges._Theirs(verdict=verdict, findings=(JUDGE_CHANGED, LOSS, new), exit_code=verdict.exit)
    monkeypatch.setattr(two_judges, "_asked", lambda *_: theirs)
    ours = Judgement(
        verdict=GateVerdict.REGRESSED,
        base="base",
        head="this tree",
        compared=Compared(tiers=1, cells=1, records=1),
        findings=(JUDGE_CHANGED, LOSS),
    )
    found = two_judges.beside_the_head(ours, Path(), "base", NO_OPTIONS)
    assert [(judge.verdict, judge.errors) for judge in found.judges] == [(GateVerdict.REGRESSED, 1), (verdict, 2)]
    assert [(f.id, f.after) for f in found.findings if f.id == "G205"] == [("G205", "G999")]


SPREAD, CHOSEN = ["--executor", "ray"], ["--variant", "turbo"]


@pytest.mark.parametrize(
    ("gate", "known"),
    [
        ('--option("--executor")', SPREAD),
        ('--option("--variant")', CHOSEN),
        ('"--executor" "--variant"', SPREAD + CHOSEN),
        ("the gate of last year", []),
    ],
)
def test_a_gate_gets_only_options_that_it_knows(gate: str, known: list[str], tmp_path: Path) -> None:
    options = two_judges.GateOptions(judging=["--seed", "1"], spreading=SPREAD, choosing=CHOSEN)
    (tmp_path / "gate.py").write_text(gate, encoding="utf-8")
    assert options.known_to(tmp_path / "gate.py") == ["--seed", "1", *known]
    assert options.known_to(tmp_path / "missing.py") == ["--seed", "1"]


def test_another_judge_that_gives_no_verdict_in_time_is_a_finding(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, head = pull_request(upstream, tmp_path)
    monkeypatch.setattr(two_judges, "VERDICT_SECONDS", 0.01)
    assert two_judges._asked(head, "HEAD", NO_OPTIONS) is None
    with pytest.raises(NotMeasuredError, match="no verdict in"):
        two_judges.judged_by_base(head, "HEAD", NO_OPTIONS, [])


def test_a_judge_that_a_signal_ends_gives_no_verdict(
    upstream: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, head = pull_request(upstream, tmp_path)
    dies = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n# --tree\n"
    (head / "ci" / "gate.py").write_text(dies, encoding="utf-8")
    commit_all(head)
    with pytest.raises(NotMeasuredError, match="the base's gate was ended by SIGSEGV; run it again"):
        two_judges.judged_by_base(head, "HEAD", NO_OPTIONS, [])
    assert 'ci/gate.py", line 2' in capfd.readouterr().err


CARD_MODULES = ("allocator", "device", "history", "history_start", "host", "kernels", "loops", "memo", "replay")
"""Modules of the simulated card itself; the others of its folder run the code that is judged."""


def test_what_defines_the_simulated_card_decides_a_verdict() -> None:
    found = set()
    for name in CARD_MODULES:
        source = (ROOT / "calibrate" / "probes" / "simulated" / f"{name}.py").read_bytes()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("acestep."):
                found.add(f"{str(node.module).replace('.', '/')}.py")
    assert found
    assert found <= set(JUDGING)


def test_a_file_that_only_the_code_of_the_change_can_read_is_for_a_maintainer(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    table = head / "tiers" / "generated_tiers.json"
    document = json.loads(table.read_text(encoding="utf-8"))
    table.write_text(json.dumps(document | {"more": 1}), encoding="utf-8")
    assert not two_judges._reads_otherwise(head, "HEAD")
    assert _unread_in(head) == (GateVerdict.INVALID, "G101")
    workflow = head / ".github" / "workflows" / "gate.yml"
    workflow.parent.mkdir(parents=True, exist_ok=True)
    workflow.write_text("on: push\n", encoding="utf-8")
    assert not two_judges._reads_otherwise(head, "HEAD")
    assert _unread_in(head) == (GateVerdict.INVALID, "G101")
    with (head / "acestep" / "tiers.py").open("a", encoding="utf-8") as reader:
        reader.write("MORE = 1\n")
    assert two_judges._reads_otherwise(head, "HEAD")
    assert _unread_in(head) == (GateVerdict.INCONCLUSIVE, "G207")


def _unread_in(head: Path) -> tuple[GateVerdict, str]:
    judgement = judge(head, "HEAD", None, TODAY, table_only=True, progress=lambda _: None)
    return judgement.verdict, next(f.id for f in judgement.findings if f.field.endswith("generated_tiers.json"))


def test_what_starts_by_itself_or_leads_elsewhere_is_named(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    assert all((ROOT / name).is_file() for name in UNSEEN)
    named = {*STARTS, *ENTRANCES, *MORE, *UNSEEN}
    for name in named:
        (head / name).parent.mkdir(parents=True, exist_ok=True)
        (head / name).write_text("x = 1\n", encoding="utf-8")
    (head / "docs").mkdir()
    (head / "docs" / "link.md").symlink_to("/etc/hostname")
    for harmless in ("docs/page.md", "ci/page.md", "calibrate/report/words.py", "acestep/version.py"):
        (head / harmless).write_text("x = 2\n", encoding="utf-8")
    found = [(finding.id, finding.field) for finding in harness_findings(head, "HEAD")]
    assert sorted(found) == sorted(("G204", name) for name in named | {"docs/link.md"})
    commit_all(head)
    assert sorted(found) == sorted((finding.id, finding.field) for finding in harness_findings(head, "HEAD~1"))


def test_code_that_looks_at_what_judges_it_is_named_with_its_line(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    path = head / "acestep" / "version.py"
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    for code, name in LOOKS.items():
        path.write_text(f"{text}{code}\n", encoding="utf-8")
        finding = {finding.after: finding for finding in harness_findings(head, "HEAD")}[name]
        assert (finding.id, finding.field) == ("G206", "acestep/version.py")
        assert f"line {lines + 1} " in finding.message or name == "code that Python cannot parse"
    path.write_text(f"{text}{HARMLESS}", encoding="utf-8")
    assert list(harness_findings(head, "HEAD")) == []


def test_a_folder_with_the_name_of_code_is_a_finding(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    path = head / "acestep" / "version.py"
    path.unlink()
    path.mkdir()
    (path / "page.md").write_text("A page.\n", encoding="utf-8")
    (finding,) = harness_findings(head, "HEAD")
    assert (finding.id, finding.field) == ("G206", "acestep/version.py")
    assert "cannot be read" in finding.message


def test_only_the_bases_gate_learns_how_a_cluster_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TLS_CA_CERT", "/etc/ca.pem")
    spread = two_judges.GateOptions(judging=(), spreading=("--executor", "ray"))
    assert two_judges._passed_to_base(spread)["RAY_TLS_CA_CERT"] == "/etc/ca.pem"
    assert "RAY_TLS_CA_CERT" not in two_judges._passed_to_base(NO_OPTIONS)
    assert "RAY_TLS_CA_CERT" not in head_environment(Path())
