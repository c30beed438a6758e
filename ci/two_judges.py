"""The judge of a change is its base's: its gate is started from there, and that of the change only beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from acestep.cli import console
from acestep.errors import NotMeasuredError
from calibrate.git import GitError, folder_at
from ci.findings import GATE_RULES, JUDGE_CHANGES, Finding, GateVerdict, Level, verdict_of, worst_first
from ci.harness import harness_findings, judges, reads
from ci.head_channel import SHOW_FAULTS, head_environment
from ci.judge import Judgement, JudgeVerdict

JUDGE_PARTS = ("ci", "calibrate", "acestep", "tiers", "virtual_card", "pyproject.toml")
"""What a judge needs of its commit."""

_TREE = "--tree"

_PACKAGES = ("ci", "calibrate", "acestep")
"""The packages of a judge: one that its commit lacks would be taken from an installed change."""

_FOR_PEOPLE = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "COLUMNS", "TERM", "NO_COLOR", "FORCE_COLOR")
"""What the base's gate gets besides what the code of a change gets, to write its verdict where it is read."""

_RAY = "RAY_"
"""The beginning of the names of Ray's environment variables."""

NO_JUDGE = "the base has no gate that can judge another tree"

_UNREAD = (b"G101", b"G207")
"""Rules about files that the base's gate cannot read, as it prints them."""

_OLDER = (
    "A file of this tree is not valid for the code of the base, and this tree brings other code that reads or judges."
    " If the file has what only that code knows, nothing can be compared: review it, merge it, and compare later"
    " changes with the commit that has it. `--tree .` shows what this tree's own gate finds."
)

VERDICT_SECONDS = 2 * 3600
"""Longest time for the verdict of another gate; on a virtual card, all cells take about an hour."""


class GateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options for another gate: those that decide what is judged, and those that only spread or limit the work.

    `spreading` and `choosing` begin with the name of an option.
    """

    judging: Sequence[str]
    spreading: Sequence[str]
    choosing: Sequence[str] = ()

    def known_to(self, gate: Path) -> list[str]:
        """Return the options for a gate of a commit, which may be too old to spread or limit the work."""
        text = gate.read_bytes() if gate.is_file() else b""
        known = [part for part in (self.spreading, self.choosing) if all(name.encode() in text for name in part[:1])]
        return [*self.judging, *(option for part in known for option in part)]


def judged_by_base(tree: Path, base: str, options: GateOptions, for_people: Sequence[str]) -> int | None:
    """Run the base's gate on a tree, with options of its own `for_people`; show what it prints, return its exit code.

    None where the base has no gate that judges another tree, or is no commit. Raises `NotMeasuredError` where it gives
    no verdict in time, or a signal ends it.
    """
    try:
        with folder_at(tree, base, *JUDGE_PARTS) as place:
            gate = place / "ci" / "gate.py"
            whole = all((place / name / "__init__.py").is_file() for name in _PACKAGES)
            if not whole or not gate.is_file() or _TREE not in gate.read_text(encoding="utf-8"):
                return None
            done = _gated(place, _passed_to_base(options), tree, base, [*options.known_to(gate), *for_people])
    except GitError:
        return None
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"the base's gate gave no verdict in {VERDICT_SECONDS} s; run it again") from None
    if done.returncode < 0:
        raise NotMeasuredError(f"the base's gate was ended by {signal.Signals(-done.returncode).name}; run it again")
    sys.stdout.buffer.write(done.stdout)
    if any(rule in done.stdout for rule in _UNREAD) and _reads_otherwise(tree, base):
        console.notify(_OLDER)
    return done.returncode


def _reads_otherwise(tree: Path, base: str) -> bool:
    """Return whether a tree brings other code that reads its files than the base has."""
    try:
        return any(reads(finding) for finding in harness_findings(tree, base))
    except GitError:
        return False


def _passed_to_base(options: GateOptions) -> dict[str, str]:
    """The environment variables that only the base's gate gets; those of Ray say how it reaches the cluster."""
    prefixes = (_RAY,) if options.spreading else ()
    return {name: value for name, value in os.environ.items() if name in _FOR_PEOPLE or name.startswith(prefixes)}


def judged_by_itself(judgement: Judgement, why: str) -> Judgement:
    """Return a judgement of a tree by its own code with a finding that says so, and why."""
    if any(finding.id == "G201" for finding in judgement.findings):
        return judgement
    message = f"{why}, so this tree judged itself: a maintainer has to review it."
    return _with(judgement, [Finding(id="G204", field="ci/gate.py", message=message)])


def beside_the_head(judgement: Judgement, tree: Path, base: str, options: GateOptions) -> Judgement:
    """Return a judgement with the verdict of the change's own judge beside it, if the change brings another judge."""
    if not any(judges(finding) for finding in judgement.findings):
        return judgement
    console.notify("The judge is being changed: the change's own judge is asked as well.")
    ours, theirs = _counted(judgement.findings), _asked(tree, base, options)
    first = JudgeVerdict(judge="base", verdict=verdict_of(ours), errors=len(ours))
    if theirs is None:
        found = [Finding(id="G205", before=first.verdict, message="the judge of the change gave no verdict.")]
        second = JudgeVerdict(judge="head", verdict=None, errors=0)
    else:
        others = _counted(theirs.findings)
        found = [*_differences(ours, others), *_exit_findings(theirs)]
        second = JudgeVerdict(judge="head", verdict=_verdict_of(theirs, others), errors=len(others))
    return msgspec.structs.replace(_with(judgement, found), judges=(first, second))


def _with(judgement: Judgement, found: Sequence[Finding]) -> Judgement:
    findings = worst_first([*judgement.findings, *found])
    return msgspec.structs.replace(judgement, findings=findings, verdict=verdict_of(findings))


def _counted(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that stop a change, without those about a changed judge, which both judges report."""
    return [finding for finding in findings if finding.level is Level.ERROR and finding.id not in JUDGE_CHANGES]


def _differences(ours: Sequence[Finding], theirs: Sequence[Finding]) -> list[Finding]:
    places = [{(f.id, f.variant, f.tier, f.field) for f in findings} for findings in (ours, theirs)]
    return [
        Finding(
            id="G205",
            variant=variant,
            tier=tier,
            field=field,
            before=rule if whose == "base" else None,
            after=rule if whose == "change" else None,
            message=f"only the judge of the {whose} finds {rule} at {' '.join((variant, tier, field)).strip()}.",
        )
        for whose, only in (("base", places[0] - places[1]), ("change", places[1] - places[0]))
        for rule, variant, tier, field in sorted(only)
    ]


class _Theirs(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of the document of the change's own gate, and its exit code."""

    verdict: GateVerdict
    findings: tuple[Finding, ...]
    exit_code: int = 0


def _verdict_of(theirs: _Theirs, others: Sequence[Finding]) -> GateVerdict:
    """The verdict of the findings of the change's judge; the one that it gave itself if it has rules of its own."""
    return verdict_of(others) if all(finding.id in GATE_RULES for finding in others) else theirs.verdict


def _exit_findings(theirs: _Theirs) -> list[Finding]:
    if theirs.exit_code == theirs.verdict.exit:
        return []
    message = f"the judge of the change ends with {theirs.exit_code}, and its verdict is {theirs.verdict}."
    return [Finding(id="G205", before=int(theirs.verdict.exit), after=theirs.exit_code, message=message)]


def _asked(tree: Path, base: str, options: GateOptions) -> _Theirs | None:
    """The document of the change's own gate, which runs in a process of its own; None if it is none."""
    try:
        done = _gated(tree, {}, tree, base, [*options.known_to(tree / "ci" / "gate.py"), "--json"])
        document = msgspec.json.decode(done.stdout, type=_Theirs)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        return None
    return msgspec.structs.replace(document, exit_code=done.returncode)


def _gated(
    judge: Path, environ: Mapping[str, str], tree: Path, base: str, options: Sequence[str]
) -> subprocess.CompletedProcess[bytes]:
    """Run the gate of a checkout on a tree, in an empty folder. Raises `subprocess.TimeoutExpired`."""
    command = [sys.executable, "-P", *SHOW_FAULTS, "-m", "ci.gate", "--base", base, _TREE, str(tree), *options]
    with TemporaryDirectory() as place:
        # Captured: where this process is interrupted, its own document is the only one.
        return subprocess.run(  # noqa: S603 our interpreter
            command,
            cwd=place,
            env={**head_environment(judge), **environ},
            stdout=subprocess.PIPE,
            check=False,
            timeout=VERDICT_SECONDS,
        )
