"""The workflows run the commands that people run, and a fork's pull request can do no harm in them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_lines import ROOT, commands, problems

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EACH = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in FILES])


def read(path: Path) -> dict[Any, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def events(workflow: dict[Any, Any]) -> set[str]:
    # YAML 1.1 reads `on` as true.
    asked = workflow[True]
    return {asked} if isinstance(asked, str) else set(asked)


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts(workflow: dict[Any, Any]) -> str:
    return "\n".join(step["run"] for step in steps(workflow) if "run" in step)


def test_there_is_a_workflow_for_each_thing_a_pull_request_needs() -> None:
    said = {path.stem: scripts(read(path)) for path in FILES}
    assert "make test" in said["tests"]
    assert "make lint types" in said["tests"]
    assert "-m ci.gate --base" in said["gate"]
    assert "-m calibrate validate" in said["measurements"]
    assert "-m calibrate run --device cuda" in said["measure"]
    assert "make test-latest" in said["latest"]
    assert "make release-check" in said["release"]


def test_the_newest_libraries_are_tried_without_being_asked_and_reported_whatever_happens() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "latest.yml")
    assert "schedule" in events(workflow)
    (report,) = [step for step in steps(workflow) if "tools.latest_report" in step.get("run", "")]
    assert report["if"] == "always()"
    assert "$GITHUB_STEP_SUMMARY" in report["run"]


def test_a_release_begins_with_a_tag_of_a_version() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "release.yml")
    assert workflow[True] == {"push": {"tags": ["v*.*.*"]}}


@EACH
def test_every_command_refers_to_existing_targets(path: Path) -> None:
    found = list(commands(scripts(read(path))))
    assert found
    assert [problem for words in found for problem in problems(words)] == []


@EACH
def test_the_token_can_only_read_and_there_are_no_secrets(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in events(workflow)
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert all("permissions" not in job for job in workflow["jobs"].values())
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@EACH
def test_actions_are_pinned_to_a_commit(path: Path) -> None:
    used = [step["uses"] for step in steps(read(path)) if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+(/[\w-]+)+@[0-9a-f]{40}", name) for name in used)


@EACH
def test_untrusted_text_reaches_the_shell_only_as_a_variable(path: Path) -> None:
    assert "${{" not in scripts(read(path))


@EACH
def test_no_failure_is_hidden(path: Path) -> None:
    """A pipe keeps the exit code of its last command unless the shell is told otherwise, and `|| true` all of them."""
    workflow = read(path)
    for step in steps(workflow):
        assert not step.get("continue-on-error")
        script = step.get("run", "")
        assert "||" not in script
        if "|" in script or len(script.strip().splitlines()) > 1:
            assert step.get("shell") == "bash"
    always = [step for step in steps(workflow) if step.get("if") == "always()"]
    assert all("ci.gate" not in step.get("run", "") for step in always)


@EACH
def test_only_a_person_starts_the_card_workflow(path: Path) -> None:
    workflow = read(path)
    ours = any("self-hosted" in job["runs-on"] for job in workflow["jobs"].values())
    assert not ours or events(workflow) == {"workflow_dispatch"}


def test_every_job_ends_in_time_and_the_gate_sees_the_history_it_compares_with() -> None:
    for path in FILES:
        assert all(job["timeout-minutes"] for job in read(path)["jobs"].values())
    for name in ("gate", "measurements"):
        (workflow,) = [read(path) for path in FILES if path.stem == name]
        checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
        assert all(checkout["with"]["fetch-depth"] == 0 for checkout in checkouts)


@pytest.mark.parametrize("name", ["gate", "measurements"])
def test_what_judges_a_pull_request_is_its_base_and_the_change_is_data(name: str) -> None:
    found = steps(read(ROOT / ".github" / "workflows" / f"{name}.yml"))
    judge, head = (step["with"] for step in found if step.get("uses", "").startswith("actions/checkout@"))
    assert (judge["path"], judge["ref"]) == ("judge", "${{ github.event.pull_request.base.sha }}")
    assert (head["path"], head.get("ref")) == ("head", None)
    assert all(step["working-directory"] == "judge" for step in found if "run" in step)


def test_the_gate_has_a_virtual_card_and_nothing_that_a_change_could_write_is_kept() -> None:
    found = steps(read(ROOT / ".github" / "workflows" / "gate.yml"))
    done = [step.get("run") or step["uses"].split("@")[0] for step in found]
    [gate] = [place for place, what in enumerate(done) if "ci.gate" in what]
    assert "--virtual" in done[gate].split()
    assert done.index("make virtual-card") < done.index("actions/cache/save") < gate
    # `actions/cache` saves when the job ends.
    assert "actions/cache" not in done
    restored, saved = (step["with"] for step in found if "cache/" in step.get("uses", ""))
    assert restored == saved
    assert "judge/virtual_card/requirements.txt" in saved["key"]
    assert saved["path"] == "judge/.venv-virtual"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make nothing", "make has no target nothing"),
        (".venv/bin/python -m ci.gate", "gate lacks --base"),
        (".venv/bin/python -m ci.gate --base x --tolerance 1", "gate has no --tolerance"),
        (".venv/bin/python -m calibrate judge", "cli has no command 'judge'"),
        (".venv/bin/python -m nothing", "no module nothing is for people"),
    ],
)
def test_a_missing_command_is_detected(line: str, problem: str) -> None:
    assert [found for words in commands(f"true && {line} > file") for found in problems(words)] == [problem]
