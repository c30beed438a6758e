"""A card is asked on both sides of each boundary of a simulated record, and every difference is told.

The cards here are formulas; `tests/virtual` asks a virtual one.
"""

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit, InvalidInputError
from acestep.knobs import Backend, Knobs, Offload
from acestep.stage import Stage
from calibrate.campaign import probers
from calibrate.campaign.beside import AskedCard, CardRun, card_run, questions_beside, read_runs, runs_text, totals
from calibrate.cli import cli
from calibrate.executors.alone import SimulationAlone
from calibrate.executors.answers import simulated_answer
from calibrate.executors.base import Executor
from calibrate.executors.questions import Probed, Question
from calibrate.files import pretty_json
from calibrate.probes.base import CapMethod
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, measured

CARD = AskedCard(name="a formula", capability="8.6", flash=True, cap_method=CapMethod.FRACTION)
SIZES = (8.0, 16.0)


class Needier(AnalyticProber):
    """The formula, with every need a share more."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def need(self, knobs: Knobs, workload: Workload) -> int:
        return int(super().need(knobs, workload) * self._factor)


def caps() -> dict[int, float]:
    return {budget_bytes(size, load_policy()): size for size in SIZES}


def asked(factor: float) -> list[CardRun]:
    """The runs of both models and none, on a card that takes `factor` times as much."""
    card, simulation = Needier(factor), AnalyticProber()
    runs = []
    for question in questions_beside(measured(sizes=SIZES), caps(), (None, "0.6B", "1.7B", "4B")):
        answer = simulated_answer(card, question)
        assert isinstance(answer, Probed)
        expected = simulation.probe(question.knobs, question.workload, question.cap_bytes)
        runs.append(card_run(CARD, caps()[question.cap_bytes], answer, expected))
    return runs


def test_each_boundary_is_asked_on_both_its_sides_and_a_model_is_loaded_once() -> None:
    record = measured(sizes=SIZES)
    questions = questions_beside(record, caps(), (None, "0.6B", "1.7B", "4B"))
    wanted = {
        record.probes[index].question
        for certificate in record.certificates
        for index in (certificate.fits, certificate.fails)
        if index is not None and certificate.knobs.backend is Backend.PT
    }
    assert {(q.knobs, q.workload, q.cap_bytes) for q in questions} == wanted
    loads = [(q.knobs.lm, q.knobs.lm_quantization, q.knobs.quantization) for q in questions]
    changes = sum(one != other for one, other in itertools.pairwise(loads))
    assert changes == len(set(loads)) - 1
    fewer = questions_beside(record, list(caps())[:1], (None,))
    assert {q.knobs.lm for q in fewer} == {None}
    assert {q.cap_bytes for q in fewer} == set(list(caps())[:1])


def test_a_card_that_needs_the_same_has_the_same_boundaries_and_one_that_needs_more_has_not() -> None:
    for total in totals(asked(1.0)):
        assert total.equal == total.boundaries > 0
        assert set(total.apart.values()) == {(0, 0)}
    different = totals(asked(1.3))
    assert any(total.equal < total.boundaries for total in different)
    assert sum(total.runs for total in different) == len(asked(1.0))


@given(over=st.integers(-5_000, 5_000), allowed=st.integers(0, 5_000), blocks=st.integers(0, 5_000))
def test_a_peak_between_tensors_and_whole_blocks_with_workspaces_is_no_difference(
    over: int, allowed: int, blocks: int
) -> None:
    question = Question(knobs=Knobs(), workload=Workload(batch=1, duration_s=60.0), cap_bytes=20 << 30)
    answer = simulated_answer(AnalyticProber(), question)
    assert isinstance(answer, Probed)
    plain = AnalyticProber().probe(question.knobs, question.workload, question.cap_bytes)
    least = {stage.name: stage.peak_allocated_bytes for stage in plain.stages}
    stages = tuple(
        msgspec.structs.replace(stage, peak_allocated_bytes=stage.peak_allocated_bytes + over)
        for stage in answer.probe.stages
    )
    answer = msgspec.structs.replace(answer, probe=msgspec.structs.replace(answer.probe, stages=stages))
    simulated = msgspec.structs.replace(
        plain,
        stages=tuple(msgspec.structs.replace(stage, allowance_bytes=allowed) for stage in plain.stages),
        blocks_at_peak={name: n + blocks for name, n in least.items()},
    )
    run = card_run(CARD, 24.0, answer, simulated)
    assert {pair[0] for pair in run.apart.values()} == {min(over, 0) + max(over - max(allowed, blocks), 0)}


def test_a_run_in_several_passes_is_no_fit() -> None:
    question = Question(knobs=Knobs(), workload=Workload(batch=2, duration_s=60.0), cap_bytes=20 << 30)
    answer = simulated_answer(AnalyticProber(), question)
    assert isinstance(answer, Probed)
    simulated = AnalyticProber().probe(question.knobs, question.workload, question.cap_bytes)
    in_passes = msgspec.structs.replace(simulated, songs_per_pass=1)
    run = card_run(CARD, 24.0, answer, in_passes)
    assert (run.simulated, run.measured, run.alike) == (Verdict.DEGRADED, Verdict.FITS, False)


class AskedTwice(SimulationAlone):
    """A card that stops after some answers, as a person does who interrupts it."""

    left = 1 << 30

    def one_of(self, wanted: object, likely: object) -> Probed:
        if type(self).left <= 0:
            raise KeyboardInterrupt
        type(self).left -= 1
        return super().one_of(wanted, likely)  # type: ignore[arg-type, return-value]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> AnalyticProber:
    """The card of this machine; it needs what the simulation says."""
    prober = AnalyticProber()

    def alone_on(device: str, method: CapMethod, *, in_float32: bool) -> Executor:
        assert (device, in_float32) == ("cuda", True)
        return AskedTwice(prober)

    monkeypatch.setattr(probers, "alone_on", alone_on)
    monkeypatch.setattr(probers, "simulation_beside", lambda card: (AnalyticProber(), True))
    monkeypatch.setattr(AskedTwice, "left", 1 << 30)
    return prober


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "simulated.json"
    path.write_text(pretty_json(measured(sizes=SIZES)), encoding="utf-8")
    return path


def test_the_command_writes_a_file_that_it_sums_up_again(
    tmp_path: Path, card: AnalyticProber, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers" / "card.json"
    answers.parent.mkdir()
    command = ["reality", str(record), "--ask", str(answers), "--tiers", "8", "16", "--cap-method", "ballast"]
    assert run_click(cli, [*command, "--json"]) == Exit.OK
    first = json.loads(capsys.readouterr().out)
    runs = read_runs(answers.parent)
    assert len(runs) == len(card.asked) == sum(total["runs"] for total in first)
    assert {run.card.cap_method for run in runs} == {CapMethod.BALLAST}
    assert run_click(cli, ["reality", str(answers.parent), "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == first
    other = msgspec.structs.replace(runs[0], measured=Verdict.CRASHED, problem="the card fell off the bus")
    (answers.parent / "other.json").write_text(runs_text([other]), encoding="utf-8")
    assert run_click(cli, ["reality", str(answers.parent)]) == Exit.REGRESSED
    assert "fell off the bus" in capsys.readouterr().out


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    tmp_path: Path, card: AnalyticProber, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "answers" / "card.json"
    answers.parent.mkdir()
    command = ["reality", str(record), "--ask", str(answers), "--tiers", "8", "--lm", "none"]
    monkeypatch.setattr(AskedTwice, "left", 3)
    assert run_click(cli, command) == Exit.INTERRUPTED
    assert not answers.exists()
    monkeypatch.setattr(AskedTwice, "left", 1 << 30)
    assert run_click(cli, command) == Exit.USAGE
    assert run_click(cli, [*command, "--resume"]) == Exit.OK
    assert len(card.asked) == len(set(card.asked)) == len(read_runs(answers.parent))


@pytest.mark.parametrize(
    ("words", "said"), [(("--tiers", "9"), "no boundary"), (("--lm", "none", "4B"), "no other name")]
)
def test_a_question_that_cannot_be_asked_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["reality", str(record), "--ask", str(tmp_path / "card.json"), *words]) == Exit.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("files", [{}, {"card.json": "[]"}, {"notes.txt": "no runs"}])
def test_a_folder_without_runs_was_not_measured(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert run_click(cli, ["reality", str(tmp_path)]) == Exit.NOT_MEASURED
    assert "holds no runs" in capsys.readouterr().err


ONLY_WITH_ASK = (
    ("--anew",),
    ("--compile",),
    ("--tiers", "8"),
    ("--lm", "none"),
    ("--cap-method", "fraction"),
    ("--resume",),
)
PAIRS = ("--csv", "pairs.csv")


@pytest.mark.parametrize("words", [*ONLY_WITH_ASK, PAIRS], ids=lambda words: words[0])
def test_an_option_that_a_folder_does_not_use_is_refused(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["reality", str(tmp_path), *words]) == Exit.USAGE
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("words", ONLY_WITH_ASK, ids=lambda words: words[0])
def test_an_option_of_ask_is_refused_without_it(
    words: tuple[str, ...], record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["reality", str(record), *words]) == Exit.USAGE
    assert words[0] in capsys.readouterr().err


def test_pairs_are_not_written_with_ask(tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_click(cli, ["reality", str(record), "--ask", str(tmp_path / "card.json"), *PAIRS]) == Exit.USAGE
    assert "--csv" in capsys.readouterr().err


def test_a_damaged_file_of_answers_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('[{"card": 3}]', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"card\.json"):
        read_runs(tmp_path)


def test_stages_are_told_in_the_order_in_which_they_run() -> None:
    thinking = next(total for total in totals(asked(1.0)) if total.lm)
    assert list(thinking.apart) == [s for s in Stage if s in thinking.apart]
    assert Offload.NONE in {run.knobs.offload for run in asked(1.0)}
