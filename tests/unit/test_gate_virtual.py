"""Which cells the gate runs on a virtual card, and what it says of the card's answers. No card is used here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from acestep.units import MIB
from calibrate.probes.base import ProbeResult
from calibrate.verdict import Verdict
from ci import on_virtual_card
from ci.cells import GateCell, certified_cells
from ci.findings import Finding, Level
from ci.on_virtual_card import Answered, Asked, on_a_virtual_card, touched
from ci.promises import stored_promises
from tests.fakes import AnalyticProber
from tests.gate_house import good
from tests.processes import require_end

Change = Callable[[ProbeResult], ProbeResult]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[GateCell]:
    """The cells of a good table that PyTorch runs."""
    folder = tmp_path_factory.mktemp("tiers")
    base = stored_promises(good().written(folder))
    assert base.policy is not None
    return touched(certified_cells(base.table, base.policy, base.records)[0], None)


@pytest.mark.parametrize(
    ("changed", "with_lm", "without"),
    [
        (["acestep/engine/denoise.py"], True, True),
        (["acestep/lm/forward.py"], True, False),
        (["acestep/lm/forward.py", "acestep/dit/blocks.py"], True, True),
        (["calibrate/probes/engine.py"], True, True),
        (["acestep/ui/page.py", "acestep/cli/main.py", "acestep/audio/write.py"], False, False),
        (["README.md", "ci/gate.py", "calibrate/report/guide.py", ""], False, False),
    ],
)
def test_the_cells_that_run_changed_files_are_chosen(
    changed: list[str], with_lm: bool, without: bool, cells: list[GateCell]
) -> None:
    found = touched(cells, changed)
    expected = [cell for cell in cells if (with_lm if cell.probe.workload.with_lm else without)]
    assert found == expected


def findings(
    cells: list[GateCell], monkeypatch: pytest.MonkeyPatch, change: Change, simulated: Change | None = None
) -> list[Finding]:
    """What is said where the card answers as the formula does, changed."""

    def answers(tree: Path, interpreter: Path, wanted: list[GateCell]) -> list[Answered]:
        found = []
        for cell in wanted:
            for asked in on_virtual_card._asked(cell):
                plain = AnalyticProber().probe(cell.probe.knobs, cell.probe.workload, asked.cap_bytes)
                found.append(Answered(card=change(plain), simulated=simulated(plain) if simulated else None))
        return found

    monkeypatch.setattr(on_virtual_card, "_answers", answers)
    monkeypatch.setattr(on_virtual_card, "_interpreter", lambda: Path(sys.executable))
    monkeypatch.setattr(on_virtual_card, "_changed", lambda tree, base: None)
    return on_a_virtual_card(Path(), "base", lambda _: None)(cells)


def more(n_bytes: int) -> Change:
    def change(result: ProbeResult) -> ProbeResult:
        stages = tuple(
            msgspec.structs.replace(stage, peak_allocated_bytes=stage.peak_allocated_bytes + n_bytes)
            for stage in result.stages
        )
        return msgspec.structs.replace(result, stages=stages)

    return change


def test_what_the_record_or_the_simulation_says_is_green_and_more_of_it_is_not(
    cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(cells, monkeypatch, more(0)) == []
    assert findings(cells, monkeypatch, more(MIB)) == []
    assert findings(cells, monkeypatch, more(64 * MIB), more(64 * MIB)) == []
    found = findings(cells, monkeypatch, more(2 * MIB))
    assert {finding.id for finding in found} == {"G302"}
    assert {(f.tier, f.field) for f in found} >= {(c.tier, f"denoise.card_allocated_bytes.{c.state}") for c in cells}
    assert all(isinstance(f.before, int) and isinstance(f.after, int) and f.after > f.before for f in found)


@pytest.mark.parametrize(
    ("verdict", "rule"), [(Verdict.OOM, "G301"), (Verdict.DEGRADED, "G301"), (Verdict.CRASHED, "G203")]
)
def test_a_cell_that_does_not_fit_on_the_card_is_red(
    verdict: Verdict, rule: str, cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(result: ProbeResult) -> ProbeResult:
        return msgspec.structs.replace(result, verdict=verdict, warnings=("the card said so",))

    found = findings(cells[:1], monkeypatch, ended)
    assert {(finding.id, finding.level) for finding in found} == {(rule, Level.ERROR)}


def test_a_run_in_several_passes_is_red(cells: list[GateCell], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(cell for cell in cells if cell.probe.workload.batch > 1)
    found = findings([batch], monkeypatch, lambda result: msgspec.structs.replace(result, songs_per_pass=1))
    assert {finding.id for finding in found} == {"G301"}


Said = Callable[[bytes], tuple[int, bytes]]


def judged_by_its_output(cells: list[GateCell], monkeypatch: pytest.MonkeyPatch, said: Said) -> list[Finding]:
    """What is said where a card's program ends so, and prints that, when it reads some questions."""

    def output(command: list[str], environ: object, asked: bytes, seconds: float) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, *said(asked) if asked else (0, b""))

    monkeypatch.setattr(on_virtual_card, "_interpreter", lambda: Path(sys.executable))
    monkeypatch.setattr(on_virtual_card, "_changed", lambda tree, base: None)
    monkeypatch.setattr(on_virtual_card, "_output", output)
    return on_a_virtual_card(Path(__file__).parents[2], "base", lambda _: None)(cells)


def told(asked: bytes) -> list[bytes]:
    """Answers as a card gives them, a line for each question."""
    answers = []
    for line in asked.splitlines():
        question = msgspec.json.decode(line, type=Asked)
        card = AnalyticProber().probe(question.probe.knobs, question.probe.workload, question.cap_bytes)
        answers.append(msgspec.json.encode(Answered(card=card, simulated=None)) + b"\n")
    return answers


@pytest.mark.parametrize(
    "said",
    [
        lambda asked: (3, b""),
        lambda asked: (0, b""),
        lambda asked: (0, b"no JSON\n"),
        lambda asked: (0, b"".join(told(asked)[1:])),
    ],
)
def test_without_answers_the_gate_is_not_green(
    said: Said, cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = judged_by_its_output(cells, monkeypatch, said)
    assert (found.id, found.level) == ("G203", Level.ERROR)


def test_what_several_cards_promise_is_asked_once_and_judged_for_each(
    cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def last_is_full(questions: bytes) -> tuple[int, bytes]:
        asked.append(questions)
        answers = told(questions)
        last = msgspec.json.decode(answers[-1], type=Answered)
        full = msgspec.structs.replace(last, card=msgspec.structs.replace(last.card, verdict=Verdict.OOM))
        return 0, b"".join([*answers[:-1], msgspec.json.encode(full)])

    once = judged_by_its_output(cells, monkeypatch, last_is_full)
    twice = judged_by_its_output([cell for cell in cells for _ in range(2)], monkeypatch, last_is_full)
    assert twice == [found for found in once for _ in range(2)] != []
    assert asked[0] == asked[1]
    assert len(set(asked[0].splitlines())) == len(asked[0].splitlines())


def test_without_the_environment_the_gate_is_not_green_and_says_how_to_make_it(
    tmp_path: Path, cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    [found] = on_a_virtual_card(tmp_path, "base", lambda _: None)(cells)
    assert (found.id, found.level) == ("G203", Level.ERROR)
    assert "make virtual-card" in found.message
    monkeypatch.setattr(on_virtual_card, "_changed", lambda tree, base: ["README.md"])
    assert on_a_virtual_card(tmp_path, "base", lambda _: None)(cells) == []


def test_a_card_that_gives_no_answer_in_time_is_ended_with_all_it_started(
    tmp_path: Path, cells: list[GateCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself starts the program of the card, which has the same standard output."""
    started = tmp_path / "started"
    slow = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {slow!r}])"
    assert on_virtual_card._output([sys.executable, "-S", "-c", starts], os.environ, b"", 2) is None
    require_end([int(started.read_text(encoding="utf-8"))])
    monkeypatch.setattr(on_virtual_card, "_output", lambda *_: None)
    assert "did not end in" in str(on_virtual_card._answers(Path(__file__).parents[2], Path(sys.executable), cells[:1]))
