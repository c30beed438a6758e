"""A card's smallest cap is bracketed in few probes, and two are enough where the simulation is near; by a formula."""

from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import Exit, NotMeasuredError
from acestep.hardware import card as hardware
from acestep.hardware.card import Card
from acestep.knobs import Knobs, Variant
from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.units import GIB
from calibrate.campaign.reality import reality_of
from calibrate.executors.alone import SimulationAlone
from calibrate.executors.questions import Question
from calibrate.probes.base import CapMethod
from calibrate.record.measurement import RecordedCard, RecordedCardKind, RecordedProbe, measurement_of
from calibrate.table.policy import load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, ScriptedProber
from tools import card_caps, record_history
from tools.card_caps import ask_all, main, next_cap, probed, questions

CARD = RecordedCard(kind=RecordedCardKind.CUDA, name="Made Up 80", compute_capability="9.0", total_bytes=80 * GIB)
grains = st.integers(100, 20_000)


def asked_of(simulated: int, smallest: int) -> dict[int, bool]:
    known: dict[int, bool] = {}
    while cap := next_cap(simulated, known):
        assert cap not in known
        assert cap % SEGMENT_GRAIN == 0
        known[cap] = cap >= smallest
    return known


@given(grains, grains)
def test_the_card_s_own_is_bracketed_however_far_off_the_simulation_is(simulated: int, smallest: int) -> None:
    known = asked_of(simulated * SEGMENT_GRAIN, smallest * SEGMENT_GRAIN)
    enough = min(cap for cap, fits in known.items() if fits)
    too_little = max((cap for cap, fits in known.items() if not fits), default=0)
    assert too_little < smallest * SEGMENT_GRAIN <= enough
    near = 0.985 <= simulated / smallest <= 1.045
    assert len(known) == 2 if near else enough - too_little <= max(0.01 * enough, SEGMENT_GRAIN) or len(known) == 2
    assert len(known) <= 70


@pytest.mark.parametrize(("off", "probes"), [(1.0, 2), (1.04, 2), (0.99, 2), (1.2, 9), (0.8, 9)])
def test_two_probes_are_enough_where_the_simulation_is_near(off: float, probes: int) -> None:
    smallest = 3000 * SEGMENT_GRAIN
    assert len(asked_of(int(smallest * off), smallest)) <= probes


def test_what_was_asked_is_what_reality_judges_by() -> None:
    card = AnalyticProber()
    asked = [(Knobs(), Workload(batch=1, duration_s=60.0)), (Knobs(), Workload(batch=8, duration_s=240.0))]

    def ask(question: Question) -> RecordedProbe:
        return probed(card, question)

    probes = tuple(ask_all(asked, lambda *one: card.smallest_caps(*one)["total"], ask, 80 * GIB))
    assert len(probes) == 4
    found = reality_of(measurement_of(CARD, probes, (), cap_method=CapMethod.FRACTION), AnalyticProber())
    assert (found.caps.near, found.caps.far, found.caps.open) == (2, 0, 0)
    assert found.caps.reached


def test_no_cap_is_asked_that_the_card_has_no_room_for() -> None:
    asked = list(questions(load_policy(), Variant.TURBO))
    assert not list(ask_all(asked, lambda *one: 90 * GIB, lambda question: pytest.fail("asked"), 80 * GIB))


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMEOUT, Verdict.TAINTED])
def test_an_answer_that_says_nothing_ends_it(verdict: Verdict) -> None:
    question = Question(knobs=Knobs(), workload=Workload(batch=1, duration_s=60.0), cap_bytes=GIB)
    with pytest.raises(NotMeasuredError, match=verdict.value):
        probed(ScriptedProber([verdict]), question)


def test_another_driver_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card(kind=hardware.CardKind.CUDA, name="Made Up 80", total_bytes=80 * GIB, driver="580.1")
    output = tmp_path / "caps.json"

    def ended(driver: str, *options: str, verdicts: list[Verdict]) -> int:
        left = iter(verdicts)
        executor = SimulationAlone(ScriptedProber(left))
        executor.card = msgspec.structs.replace(card, driver=driver)
        monkeypatch.setattr(card_caps, "alone_on", lambda device: executor)
        monkeypatch.setattr(card_caps, "simulation_of", lambda *_: AnalyticProber())
        code = main(["-o", str(output), *options])
        assert next(left, None) is None
        return code

    assert ended("580.1", verdicts=[Verdict.FITS, Verdict.CRASHED]) == Exit.NOT_MEASURED
    assert ended("581.0", "--resume", verdicts=[]) == Exit.USAGE
    assert "driver 581.0" in capsys.readouterr().err
    assert ended("580.1", "--resume", verdicts=[Verdict.CRASHED]) == Exit.NOT_MEASURED


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_nothing_is_measured(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", f"{tmp_path}/caps.json"]) == Exit.NOT_MEASURED
    assert record_history.main(["-o", f"{tmp_path}/history"]) == Exit.NOT_MEASURED
    assert "card" in capsys.readouterr().err
