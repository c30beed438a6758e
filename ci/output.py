"""A judgement as text for people, GitHub and test reports."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from acestep.cli import console
from calibrate.files import as_text
from calibrate.screen import print_table
from ci.causes import causes, shown_value
from ci.findings import GATE_RULES, JUDGE_CHANGES, Finding, Level
from ci.judge import Judgement

JUDGE_IS_CHANGED = "The judge is being changed: a maintainer has to review it."

MOST_ANNOTATIONS = 10
"""GitHub shows this many annotations of one kind for a step; the last one gives the number of the others."""

MOST_CAUSES = 50
"""Causes that the step summary lists above the table of findings."""

MOST_SUMMARY_CHARACTERS = 200_000
"""Characters of a step summary; GitHub drops one above 1 MiB, and a character takes up to four bytes."""

MOST_OF_A_MESSAGE = 1_000

_COLUMNS = ("level", "id", "variant", "tier", "field", "before", "after", "stage", "component")


def print_findings(judgement: Judgement, *, single: bool = False) -> None:
    """Print the verdict on stdout: a sentence about each cause, and with `single` a table of all findings before."""
    if _judge_changes(judgement):
        click.echo(JUDGE_IS_CHANGED)
    if single and judgement.findings:
        rows = [_cells(finding) for finding in judgement.findings]
        print_table(f"Against {judgement.base}", _COLUMNS, rows, folding=("field", "before", "after", "component"))
    found = causes(judgement.findings)
    for cause in found:
        rules = ", ".join(dict.fromkeys(finding.id for finding in cause.findings))
        click.echo(f"{rules} {cause.first.level}: {_one_line(cause.message)}")
        if single and len(cause.findings) > 1:
            for finding in cause.findings:
                click.echo(f"    {finding.id}: {_one_line(finding.message)}")
    if not single and len(found) < len(judgement.findings):
        click.echo(f"--all lists each of the {len(judgement.findings)} findings.")
    click.echo(headline(judgement))


def headline(judgement: Judgement) -> str:
    """Return the verdict in a sentence, with the numbers of what was compared."""
    compared = judgement.compared
    verdicts = ", ".join(f"{one.judge}'s judge: {one.verdict or 'no verdict'}" for one in judgement.judges)
    counts = [f"{n} {level}s" for level in Level if (n := sum(f.level is level for f in judgement.findings))]
    rests = f"{compared.tiers} tiers compared, {compared.cells} cells probed again, {compared.records} records read"
    beside = f" The {verdicts}." if verdicts else ""
    left_out = f" Not simulated: {', '.join(judgement.not_simulated)}." if judgement.not_simulated else ""
    return f"Verdict: {judgement.verdict}.{beside} {rests}; {', '.join(counts) or 'nothing found'}.{left_out}"


def _judge_changes(judgement: Judgement) -> bool:
    return any(finding.id in JUDGE_CHANGES for finding in judgement.findings)


def annotations(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield workflow commands, the worst first, as many of each kind as GitHub shows."""
    for level in Level:
        alike = [finding for finding in findings if finding.level is level]
        shown = alike if len(alike) <= MOST_ANNOTATIONS else alike[: MOST_ANNOTATIONS - 1]
        for finding in shown:
            title = _property(f"{finding.id} {finding.variant} {finding.tier}".strip())
            yield f"::{level} title={title}::{_data(finding.message[:MOST_OF_A_MESSAGE])}"
        if len(shown) < len(alike):
            yield f"::{level} title=gate::and {len(alike) - len(shown)} more; the step summary lists them"


def summary(judgement: Judgement) -> str:
    """Return the verdict and every finding as Markdown, cut between rows if it would be too long."""
    lines = [f"## Gate: {judgement.verdict}", ""]
    lines += [JUDGE_IS_CHANGED, ""] if _judge_changes(judgement) else []
    lines += [_markdown(headline(judgement)), ""]
    if judgement.findings:
        lines += [f"- {_markdown(cause.message)}" for cause in causes(judgement.findings)[:MOST_CAUSES]]
        lines += ["", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    length = sum(map(len, lines))
    for number, finding in enumerate(judgement.findings):
        row = _row([_markdown(cell) for cell in _cells(finding)])
        length += len(row) + 1
        if length > MOST_SUMMARY_CHARACTERS:
            lines += ["", f"And {len(judgement.findings) - number} more."]
            break
        lines.append(row)
    return "\n".join(lines) + "\n"


def outputs(judgement: Judgement) -> str:
    """Return the outputs for later steps of a workflow."""
    errors = sum(finding.level is Level.ERROR for finding in judgement.findings)
    left_out = ",".join(judgement.not_simulated)
    counts = f"errors={errors}\nfindings={len(judgement.findings)}\n"
    return f"verdict={judgement.verdict}\n{counts}not_simulated={left_out}\n"


def append(path: str, addition: str) -> None:
    """Append to a file that GitHub reads after the step; do nothing if GitHub named none.

    If the file cannot be written, a message says so: the verdict does not depend on it.
    """
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(addition)
    except OSError as error:
        console.notify(f"could not write {path}: {error.strerror}; the verdict stands without it")


def junit_xml(judgement: Judgement) -> str:
    """Return JUnit XML with a test case for each rule, which fails with the findings that stop a change."""
    stopping = [finding for finding in judgement.findings if finding.level is Level.ERROR]
    failed = {finding.id for finding in stopping}
    suite = ET.Element("testsuite", name="gate", tests=str(len(GATE_RULES)), failures=str(len(failed)), errors="0")
    if judgement.not_simulated:
        properties = ET.SubElement(suite, "properties")
        ET.SubElement(properties, "property", name="not_simulated", value=", ".join(judgement.not_simulated))
    for rule in GATE_RULES.values():
        case = ET.SubElement(suite, "testcase", classname="gate", name=f"{rule.id} {rule.promise}")
        if rule.id in failed:
            told = [_one_line(finding.message) for finding in stopping if finding.id == rule.id]
            failure = ET.SubElement(case, "failure", message=told[0][:MOST_OF_A_MESSAGE], type=rule.verdict)
            failure.text = "\n".join(told)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _cells(finding: Finding) -> list[str]:
    values = msgspec.structs.asdict(finding)
    if finding.before is None and finding.after is None:
        values |= {"before": "", "after": ""}
    else:
        values |= {name: shown_value(finding, values[name]) for name in ("before", "after")}
    return [_one_line(as_text(values[name])) for name in _COLUMNS]


def _one_line(said: str) -> str:
    """Return untrusted text in a form that is safe for a terminal and for XML."""
    return "".join(character if character.isprintable() else "?" for character in said)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(said: str) -> str:
    """Return text without characters that have a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~@&])", lambda found: f"&#{ord(found[0])};", _one_line(said))


def _data(said: str) -> str:
    return said.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(said: str) -> str:
    return _data(said).replace(":", "%3A").replace(",", "%2C")
