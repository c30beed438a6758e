"""A scenario that is granted less, takes more or leaves more behind than at the base is found, whatever it is."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from acestep.knobs import Knobs, Offload, Quantization
from acestep.request import Request
from acestep.thinking import Thinking
from acestep.tiers import TierTable
from acestep.units import MIB
from ci.head_channel import HeadGoneError
from ci.head_process import HeadSimulation
from ci.judge_scenarios import is_possible, scenario_findings, scenario_tasks
from ci.scenarios.all_scenarios import SCENARIOS
from ci.scenarios.entry_points import options_of
from ci.scenarios.scenario import EntryPoint, RequestKind, Scenario, ScenarioRequest, ScenarioResult, ServiceCall
from tests.gate_faults import without_lm
from tests.gate_house import good

SHARE = 0.02
MADE = ServiceCall(
    what="songs",
    held_bytes=100 * MIB,
    host_bytes=10 * MIB,
    stages={"encode": {"text_encoder": 90 * MIB, "activations": 10 * MIB}},
    stages_before={"between": {"transformer": 60 * MIB}},
    refusals=0,
    batch=4,
    duration_s=60.0,
    songs_per_pass=2,
    decode_path="gpu",
    thought_per_pass=2,
    knobs=Knobs(offload=Offload.CPU, lm="1.7B"),
)
BEFORE = ScenarioResult(
    made=(MADE, MADE, MADE),
    held_bytes=100 * MIB,
    host_bytes=10 * MIB,
    left_bytes=MIB,
    models=1,
    language_models=1,
    offers={"max_batch": 8},
    called=("generate", "load"),
)
SCENARIO = Scenario(
    name="a scenario",
    entry=EntryPoint.PAGE,
    card_gib=8,
    free_bytes=1 << 33,
    requests=(ScenarioRequest(batch=4, duration_s=60.0),) * 3,
    limited=True,
)


def _changed(**fields: Any) -> ScenarioResult:
    return msgspec.structs.replace(BEFORE, **fields)


def _last(**fields: Any) -> ScenarioResult:
    return _changed(made=(MADE, MADE, msgspec.structs.replace(MADE, **fields)))


def _knobs(**fields: Any) -> Knobs:
    return msgspec.structs.replace(Knobs(offload=Offload.CPU, lm="1.7B"), **fields)


def _held(**fields: Any) -> ScenarioResult:
    return _changed(made=(msgspec.structs.replace(MADE, **fields),) * 3, **fields)


WORSE: dict[tuple[str, str], Callable[[], ScenarioResult]] = {
    ("G203", "made"): lambda: _changed(made=(MADE, MADE)),
    ("G203", "called"): lambda: _changed(called=("load",)),
    ("G203", "held_bytes"): lambda: _held(held_bytes=0),
    ("G203", "host_bytes"): lambda: _held(host_bytes=0),
    ("G308", "transformer"): lambda: _last(stages_before={"between": {"transformer": 63 * MIB}}),
    ("G308", "models"): lambda: _changed(models=2),
    ("G308", "language_models"): lambda: _changed(language_models=2),
    ("G308", "encode"): lambda: _last(stages={"encode": {"text_encoder": 90 * MIB, "encode": 13 * MIB}}),
    ("G308", "between"): lambda: _last(stages=MADE.stages | {"between": {"between": 2 * MIB}}),
    ("G308", "lm"): lambda: _changed(stages_after={"between": {"lm": 2 * MIB}}),
    ("G309", "held_bytes"): lambda: _last(held_bytes=103 * MIB),
    ("G309", "more_held_bytes"): lambda: _last(held_bytes=MADE.held_bytes + 512),
    ("G309", "host_bytes"): lambda: _changed(host_bytes=13 * MIB),
    ("G309", "more_host_bytes"): lambda: _changed(host_bytes=11 * MIB + 1024),
    ("G309", "left_bytes"): lambda: _changed(left_bytes=2 * MIB),
    ("G513", "max_batch"): lambda: _changed(offers={"max_batch": 4}),
    ("G513", "batch"): lambda: _last(batch=3),
    ("G513", "duration_s"): lambda: _last(duration_s=59.0),
    ("G513", "songs_per_pass"): lambda: _last(songs_per_pass=1),
    ("G513", "thought_per_pass"): lambda: _last(thought_per_pass=1),
    ("G513", "decode_path"): lambda: _last(decode_path="cpu"),
    ("G513", "gpu-of-another"): lambda: _last(decode_path="gpu-of-another"),
    ("G513", "lm"): lambda: _last(knobs=_knobs(lm="0.6B")),
    ("G513", "lm_quantization"): lambda: _last(knobs=_knobs(lm_quantization=Quantization.INT8)),
    ("G513", "stages"): lambda: _last(stages={}),
    ("G513", "offload"): lambda: _last(knobs=_knobs(offload=Offload.STREAM)),
    ("G513", "quantization"): lambda: _last(knobs=_knobs(quantization=Quantization.INT8)),
    ("G514", "batch"): lambda: _last(batch=8),
    ("G514", "duration_s"): lambda: _last(duration_s=61.0),
    ("G514", "refusals"): lambda: _last(refusals=1),
}


@pytest.mark.parametrize("rule_and_what", WORSE, ids=" ".join)
def test_what_is_worse_is_found(rule_and_what: tuple[str, str]) -> None:
    rule, what = rule_and_what
    found = list(scenario_findings(SCENARIO, BEFORE, WORSE[rule_and_what](), SHARE))
    assert [finding.id for finding in found] == [rule]
    assert what in (found[0].stage, found[0].component, found[0].field.rpartition(".")[2], found[0].after)


def test_what_is_better_or_within_the_tolerance_is_none() -> None:
    frugal = {"encode": {"text_encoder": 90 * MIB, "activations": 11 * MIB}}
    better = msgspec.structs.replace(MADE, stages=frugal, songs_per_pass=4, knobs=_knobs(offload=Offload.NONE))
    larger = msgspec.structs.replace(better, knobs=_knobs(lm="4B", lm_quantization=Quantization.INT8))
    for made in (better, larger):
        assert not list(scenario_findings(SCENARIO, BEFORE, _changed(made=(made,) * 3, left_bytes=0), SHARE))


def test_the_ways_to_decode_are_compared_by_their_order() -> None:
    slow = _changed(made=(msgspec.structs.replace(MADE, decode_path="cpu"),) * 3)
    assert not list(scenario_findings(SCENARIO, slow, BEFORE, SHARE))


def test_weights_may_grow_within_the_tolerance_for_all_requests_alike() -> None:
    more = msgspec.structs.replace(MADE, held_bytes=101 * MIB)
    assert not list(scenario_findings(SCENARIO, BEFORE, _changed(made=(MADE, more, more), held_bytes=101 * MIB), SHARE))


def test_what_needs_a_language_model_is_played_only_where_the_table_has_one() -> None:
    house = good()
    assert all(is_possible(scenario, msgspec.convert(house.table, TierTable)) for scenario in SCENARIOS)
    for tier in house.tiers:
        without_lm(tier)
    bare = msgspec.convert(house.table, TierTable)
    assert {scenario.name for scenario in SCENARIOS if not is_possible(scenario, bare)} == {"a recording in words"}


class _Ended(HeadSimulation):
    def __init__(self) -> None:
        pass

    def outcome_of(self, scenario: Scenario, table: TierTable) -> ScenarioResult:
        raise HeadGoneError("a process that simulates ended with code 3")


def test_a_scenario_that_ends_its_process_is_named() -> None:
    house = good()
    table = msgspec.convert(house.table, TierTable)
    task = scenario_tasks({SCENARIOS[0].name: BEFORE}, table, SHARE, lambda _: None)[0]
    with pytest.raises(HeadGoneError, match=f'"{SCENARIOS[0].name}" was not played to its end: .* code 3'):
        list(task(_Ended()))


def test_every_entry_point_and_every_kind_of_request_is_played() -> None:
    assert {scenario.entry for scenario in SCENARIOS} == set(EntryPoint)
    assert {request.kind for scenario in SCENARIOS for request in scenario.requests} == set(RequestKind)
    assert any(scenario.limited for scenario in SCENARIOS)
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


NEVER_ASKED = {"audio_codes", "track", "tracks"}
"""Options of a request that no scenario has: codes come from a plan or a source, and tracks are for base alone."""


def test_no_option_of_a_request_is_always_the_same() -> None:
    asked = [request for scenario in SCENARIOS for request in scenario.requests]
    by_python = [
        request for scenario in SCENARIOS if scenario.entry is EntryPoint.PYTHON for request in scenario.requests
    ]
    plain = Request(caption="")
    varied = {
        name for request in by_python for name, value in options_of(request).items() if value != getattr(plain, name)
    }
    usual = {"caption", "lyrics", "language", "duration_s", "batch", "think", "seed", "steps"}
    assert {*Request.__struct_fields__} - varied - usual == NEVER_ASKED
    for name in ("lyrics", "language", "duration_s", "batch", "think"):
        assert len({getattr(request, name) for request in asked}) > 1


def test_a_plan_is_asked_for_with_no_option_as_it_is_by_default() -> None:
    (otherwise,) = {request for scenario in SCENARIOS for request in scenario.requests if request.kind == "otherwise"}
    thinking, usual = options_of(otherwise)["thinking"], Thinking()
    alike = {name for name in Thinking.__struct_fields__ if getattr(thinking, name) == getattr(usual, name)}
    assert alike == {"codes", "planned_caption"}
    pairs = zip(msgspec.structs.astuple(thinking.sampling), msgspec.structs.astuple(usual.sampling), strict=True)
    assert all(here != there for here, there in pairs)
