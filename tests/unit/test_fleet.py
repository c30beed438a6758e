"""Cards of one kind share a campaign: lost cards lose no answer, and a card that is not what it says is excluded."""

import re
import threading
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.budgets import System
from acestep.errors import NotMeasuredError
from acestep.knobs import Variant
from acestep.units import GIB
from calibrate.campaign.boundary import Method
from calibrate.campaign.run import CampaignScope, run_campaign
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.base import ExecutorStoppedError
from calibrate.executors.cards import simulated_as
from calibrate.executors.fleet import MOST_LOSSES, STUCK_S, Fleet, FleetState
from calibrate.executors.local import trace_of
from calibrate.executors.questions import Fit, Probed, ProbeTask, Question
from calibrate.executors.remote import Place, WorkerAnswer, WorkerSetup
from calibrate.fingerprint import setting_here
from calibrate.probes.base import UNCONDITIONED, CapMethod
from calibrate.table.policy import load_policy
from calibrate.verdict import Verdict
from tests.fake_workers import SETUP, FakeWorkers, FormulaCard, FormulaCardWorker, Spoil, place, replaced
from tests.fakes import AnalyticProber

POLICY = load_policy()
SCOPE = CampaignScope(variant=Variant.TURBO, sizes_gib=(5,))
REAL = WorkerSetup(device="cuda", kind="L4", system=System.LINUX, cap_method=CapMethod.FRACTION)
REAL_SCOPE = CampaignScope(variant=Variant.TURBO, sizes_gib=(5,), models=(), in_full=True)


def found_by(workers: FakeWorkers, watch: Callable[[FleetState], None] = lambda _: None) -> bytes:
    fleet = Fleet(SETUP, workers, stopped=threading.Event(), watch=watch, clock=workers.clock)
    try:
        return msgspec.json.encode(run_campaign(fleet, POLICY, SCOPE, lambda _: None))
    finally:
        fleet.close()
        assert workers.closed


@pytest.fixture(scope="module")
def alone() -> bytes:
    return msgspec.json.encode(run_campaign(SimulationAlone(AnalyticProber()), POLICY, SCOPE, lambda _: None))


@settings(max_examples=6)
@given(cards=st.integers(1, 5), seed=st.integers(0, 99))
def test_several_cards_find_what_one_finds_and_nothing_is_traced_twice(alone: bytes, cards: int, seed: int) -> None:
    workers = FakeWorkers(cards, seed)
    assert found_by(workers) == alone
    tasks = [task for _, task in workers.asked]
    assert len(tasks) == len(set(tasks))
    traced = {(place, trace_of(task)) for place, task in workers.asked}
    assert len(traced) == len({trace for _, trace in traced})


@settings(max_examples=6)
@given(
    seed=st.integers(0, 99),
    losses=st.sets(st.integers(0, 25), min_size=1, max_size=MOST_LOSSES - 1),
    back=st.booleans(),
)
def test_a_lost_card_loses_no_answer(alone: bytes, seed: int, losses: set[int], back: bool) -> None:
    workers, answers = FakeWorkers(5, seed), iter(range(1000))

    def lose(place: Place, task: ProbeTask) -> bool:
        lost = next(answers) in losses
        if lost and not back:
            workers.gone.add(place)
        return lost

    workers.lose = lose
    assert found_by(workers) == alone
    assert len(workers.started) >= 5 + (len(losses) if back else 0)


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Question, "crashed.*failed 3 times.*the node is gone.*--resume"), (Fit, "fitted.*failed 3 times")],
)
def test_what_is_lost_three_times_on_different_cards_is_given_up(kind: type[ProbeTask], told: str) -> None:
    workers = FakeWorkers(4)
    victim: list[ProbeTask] = []

    def lose(place: Place, task: ProbeTask) -> bool:
        if isinstance(task, kind):
            victim.append(task)
        return task in victim[:1]

    workers.lose = lose
    kept: list[Probed] = []
    fleet = Fleet(SETUP, workers, stopped=threading.Event(), clock=workers.clock)
    with pytest.raises(NotMeasuredError, match=told):
        run_campaign(fleet, POLICY, SCOPE, lambda _: None, keep=kept.append)  # type: ignore[arg-type]
    tried = [place for place, task in workers.asked if task == victim[0]]
    assert len(tried) == MOST_LOSSES
    assert all(before != after for before, after in pairwise(tried))
    assert kind is Fit or kept[-1].probe.verdict is Verdict.CRASHED


OTHER_CODE = "0.0.1+tree.0123456789abcdef"
LIES: dict[str, tuple[Spoil, str]] = {
    "another card": (replaced(b'"capability":[9,0]', b'"capability":[8,9]'), "declared as H100"),
    "another code": (replaced(setting_here().code.encode(), OTHER_CODE.encode()), OTHER_CODE),
    "another library": (replaced(b'"torchao":"', b'"torchao":"9.'), "torchao 9."),
    "foreign memory": (replaced(b'"foreign_bytes":0', f'"foreign_bytes":{3 * GIB}'.encode()), "hold 3.00 GiB"),
    "another device": (replaced(b'"device":"simulated"', b'"device":"cuda"'), "answers as a cuda card"),
    "no report": (lambda _: b"{", "cannot be read"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_card_that_is_not_what_was_declared_is_excluded_with_its_reason(lie: str, alone: bytes) -> None:
    workers, states = FakeWorkers(3), list[FleetState]()
    spoil, reason = LIES[lie]
    workers.report[place(2)] = spoil
    assert found_by(workers, states.append) == alone
    assert place(2) not in {asked for asked, _ in workers.asked}
    assert place(2) in workers.stopped
    assert workers.started.count(place(2)) == 1
    assert reason in states[-1].excluded[str(place(2))]


def changed(**fields: object) -> Spoil:
    """Change the probe of an answer."""

    def spoil(said: bytes) -> bytes:
        answer = msgspec.json.decode(said, type=WorkerAnswer)
        assert isinstance(answer.entry, Probed)
        probe = msgspec.structs.replace(answer.entry.probe, **fields)
        return msgspec.json.encode(
            msgspec.structs.replace(answer, entry=msgspec.structs.replace(answer.entry, probe=probe))
        )

    return spoil


def of_workload(**fields: object) -> Spoil:
    """Change the workload that an answer says it ran."""

    def spoil(said: bytes) -> bytes:
        answer = msgspec.json.decode(said, type=WorkerAnswer)
        assert isinstance(answer.entry, Probed)
        return changed(workload=msgspec.structs.replace(answer.entry.probe.workload, **fields))(said)

    return spoil


WRONG_ANSWERS: dict[str, tuple[Spoil, str]] = {
    "of another batch": (replaced(b'"batch":', b'"batch":1'), "another question"),
    "of other steps": (of_workload(steps=40), "another question"),
    "of another prompt": (of_workload(lyric_tokens=1), "another question"),
    "with a reference": (of_workload(reference_seconds=30.0), "another question"),
    "of another attempt": (changed(asked=2), "another question"),
    "that fits without a stage": (changed(verdict=Verdict.FITS, stages=()), "another question"),
    "no answer": (lambda said: said[:-1], "cannot be read"),
    "under foreign load": (
        lambda said: re.sub(rb'"verdict":"\w+"', b'"verdict":"tainted"', said).replace(
            b'"problem":null', b'"problem":"another program took 2.00 GiB"'
        ),
        "another program took 2.00 GiB",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
def test_a_card_that_answers_wrongly_is_excluded_and_its_question_asked_elsewhere(wrong: str, alone: bytes) -> None:
    workers, states = FakeWorkers(3), list[FleetState]()
    spoil, reason = WRONG_ANSWERS[wrong]
    workers.answer[place(1)] = lambda said: spoil(said) if b'"workload"' in said else said
    assert found_by(workers, states.append) == alone
    assert reason in states[-1].excluded[str(place(1))]


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMEOUT])
def test_a_probe_that_fails_on_one_card_is_asked_on_another(verdict: Verdict, alone: bytes) -> None:
    def fail(said: bytes) -> bytes:
        return changed(verdict=verdict)(said) if b'"workload"' in said else said

    workers = FakeWorkers(2)
    workers.answer[place(1)] = fail
    assert found_by(workers) == alone
    assert len([asked for asked, _ in workers.asked if asked == place(1)]) > 1
    workers = FakeWorkers(1)
    workers.answer[place(1)] = fail
    with pytest.raises(NotMeasuredError, match=verdict):
        found_by(workers)


def test_a_record_names_the_cards_whose_answers_counted() -> None:
    workers, stopped = FakeWorkers(3, setup=REAL, worker=FormulaCardWorker), threading.Event()
    watched = msgspec.structs.replace(UNCONDITIONED, watched=True, context_bytes=7)

    def watching(said: bytes) -> bytes:
        return msgspec.json.encode(
            msgspec.structs.replace(msgspec.json.decode(said, type=WorkerAnswer), conditions=watched)
        )

    for number in (1, 2, 3):
        workers.report[place(number)] = replaced(b'"serial":""', f'"serial":"card {number}"'.encode())
        workers.answer[place(number)] = watching
    workers.answer[place(2)] = lambda said: changed(verdict=Verdict.TAINTED)(said) if b'"workload"' in said else said
    fleet = Fleet(REAL, workers, stopped=stopped, clock=workers.clock)
    assert fleet.card
    assert (fleet.serials, fleet.conditions) == ((), UNCONDITIONED)
    run_campaign(fleet, POLICY, REAL_SCOPE, lambda _: None, method=Method())
    assert list(fleet.excluded) == [place(2)]
    assert (fleet.serials, fleet.conditions) == (("card 1", "card 3"), watched)


def test_two_real_cards_find_what_one_finds_and_each_loads_few_models() -> None:
    one = run_campaign(CardAlone(FormulaCard()), POLICY, REAL_SCOPE, lambda _: None, method=Method())
    workers = FakeWorkers(2, setup=REAL, worker=FormulaCardWorker)
    fleet = Fleet(REAL, workers, stopped=threading.Event(), clock=workers.clock)
    assert run_campaign(fleet, POLICY, REAL_SCOPE, lambda _: None, method=Method()) == one
    loads = dict.fromkeys(workers.there, 0)
    for there in workers.there:
        knobs = [task.knobs for asked, task in workers.asked if asked == there and isinstance(task, Question)]
        loads[there] = sum(before != after for before, after in pairwise(knobs))
        assert knobs
        assert loads[there] < len(knobs) / 2


def test_a_real_card_that_cannot_answer_is_left_out_where_there_are_others() -> None:
    one = run_campaign(CardAlone(FormulaCard()), POLICY, REAL_SCOPE, lambda _: None, method=Method())

    def broken(_: bytes) -> bytes:
        return msgspec.json.encode(WorkerAnswer(entry=None, conditions=UNCONDITIONED, problem="the driver is gone"))

    for cards in (2, 1):
        workers = FakeWorkers(cards, setup=REAL, worker=FormulaCardWorker)
        workers.answer[place(1)] = broken
        fleet = Fleet(REAL, workers, stopped=threading.Event(), clock=workers.clock)
        if cards == 1:
            with pytest.raises(NotMeasuredError, match="#1: the driver is gone"):
                run_campaign(fleet, POLICY, REAL_SCOPE, lambda _: None, method=Method())
        else:
            assert run_campaign(fleet, POLICY, REAL_SCOPE, lambda _: None, method=Method()) == one
            assert fleet.excluded == {place(1): "the driver is gone"}


def test_without_any_card_the_reasons_are_told_after_a_while() -> None:
    workers = FakeWorkers(1)
    workers.report[place(1)] = LIES["another code"][0]
    with pytest.raises(NotMeasuredError, match=rf"no H100 is left.*10\.0\.0\.1 #1.*{re.escape(OTHER_CODE)}"):
        found_by(workers)
    assert workers.seconds >= workers.patience_s


def test_a_card_that_joins_later_is_used(alone: bytes) -> None:
    workers = FakeWorkers(2)
    late = place(2)
    workers.gone.add(late)

    def lose(place: Place, task: ProbeTask) -> bool:
        if len(workers.asked) == 5:
            workers.gone.discard(late)
        return False

    workers.lose = lose
    assert found_by(workers) == alone
    assert late in {place for place, _ in workers.asked}


def test_a_fleet_that_is_stopped_ends_at_its_next_look() -> None:
    workers, stopped = FakeWorkers(2), threading.Event()
    fleet = Fleet(SETUP, workers, stopped=stopped, clock=workers.clock)
    assert fleet.card == simulated_as("H100")
    stopped.set()
    with pytest.raises(ExecutorStoppedError):
        run_campaign(fleet, POLICY, SCOPE, lambda _: None)


def test_a_card_that_works_long_on_one_task_is_told() -> None:
    workers, states, stopped = FakeWorkers(1), list[FleetState](), threading.Event()
    fleet = Fleet(SETUP, workers, stopped=stopped, watch=states.append, clock=workers.clock)
    assert fleet.card
    began = workers.seconds

    def ten_minutes_without_news(timeout_s: float) -> None:
        if workers.seconds > began + 1000:
            stopped.set()
        workers.seconds += 600

    workers.next_event = ten_minutes_without_news  # type: ignore[method-assign]
    with pytest.raises(ExecutorStoppedError):
        fleet.one_of([Fit(variant=Variant.TURBO)], list)
    assert states[-1].slow == {str(place(1)): "20 min on one task"}


def test_tasks_are_foretold_once_for_each_answer_however_long_it_takes() -> None:
    workers, states, foretold = FakeWorkers(2), list[FleetState](), list[int]()
    fleet = Fleet(SETUP, workers, stopped=threading.Event(), watch=states.append, clock=workers.clock)
    while not states or states[-1].at_work < 2:
        fleet.one_of([Fit(variant=Variant.TURBO)], list)
    waits, next_event = iter(range(20)), workers.next_event

    def late(timeout_s: float) -> object:
        return None if next(waits, None) is not None else next_event(timeout_s)

    workers.next_event = late  # type: ignore[method-assign, assignment]
    fleet.one_of([Fit(variant=Variant.TURBO)], lambda: foretold.append(1) or [])  # type: ignore[func-returns-value]
    assert foretold == [1]


def test_a_fleet_that_waits_for_its_first_card_tells_it() -> None:
    workers, states, stopped = FakeWorkers(2), list[FleetState](), threading.Event()

    def nothing_starts(timeout_s: float) -> None:
        workers.seconds += 30
        if workers.seconds > 100:
            stopped.set()

    workers.next_event = nothing_starts  # type: ignore[method-assign]
    fleet = Fleet(SETUP, workers, stopped=stopped, watch=states.append, clock=workers.clock)
    with pytest.raises(ExecutorStoppedError):
        assert fleet.card
    assert (states[0].slow, states[0].starting) == ({}, 2)
    assert states[-1].slow == {str(place(1)): "it waits for a free core or card, or does not start"}


@settings(max_examples=4)
@given(seed=st.integers(0, 99), number=st.integers(1, 20))
def test_a_card_that_hangs_counts_as_lost_and_its_task_is_done_elsewhere(alone: bytes, seed: int, number: int) -> None:
    workers = FakeWorkers(3, seed)
    answers = iter(range(1000))
    workers.hang = lambda place, task: next(answers) == number
    assert found_by(workers) == alone
    assert workers.seconds > STUCK_S["simulated"]
    hung = workers.stopped[0]
    assert workers.started.count(hung) == 2


def test_what_hangs_on_every_card_ends_the_campaign() -> None:
    workers = FakeWorkers(2)
    workers.hang = lambda place, task: isinstance(task, Question)
    with pytest.raises(NotMeasuredError, match=r"failed 3 times.*no answer in 30 min"):
        found_by(workers)
