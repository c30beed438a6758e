"""Checks that requests, as people make them, are granted as much as at the base and take no more memory.

No record has them, so the code of the base plays the same scenarios, and what comes of them is what a change may take.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

from acestep.knobs import KNOBS, Knobs, Variant
from acestep.song import DecodePath
from acestep.tiers import TierTable, lm_rank
from acestep.units import MIB, mib
from calibrate.files import as_text
from calibrate.probes.base import Simulation
from ci.counting import TellCells
from ci.doors import ANY_TIER
from ci.findings import Finding, FindingValue
from ci.head_channel import HeadGoneError
from ci.head_process import HeadSimulation
from ci.judge_code import CODE_ERRORS
from ci.scenarios.all_scenarios import SCENARIOS
from ci.scenarios.scenario import BETWEEN, EntryPoint, RequestKind, Scenario, ScenarioResult, ServiceCall, StagePeaks
from ci.side_by_side import SimulationTask

SAVING_KNOBS = ("offload", "quantization")
"""Knobs that take longer, or make a song worse, the more they save."""

SCENARIO = "scenario"
"""Stands for the stage where a finding is about none."""


def base_scenario_tasks(
    variants: Collection[Variant], table: TierTable, progress: TellCells, found: dict[str, ScenarioResult]
) -> list[SimulationTask]:
    """Return a task for each possible scenario, which the base plays; it puts what came of it into `found`, by name."""

    def played(scenario: Scenario, simulation: Simulation) -> list[Finding]:
        progress(f"Playing at the base: {scenario.name}.")
        try:
            found[scenario.name] = _played(scenario, table, simulation)
        except CODE_ERRORS as error:
            return [_Told(scenario)("G203", "at_base", f"cannot be played at the base: {error}"[:300])]
        return []

    return [
        lambda simulation, scenario=scenario: played(scenario, simulation)  # type: ignore[misc]
        for scenario in SCENARIOS
        if scenario.variant in variants and is_possible(scenario, table)
    ]


def is_possible(scenario: Scenario, table: TierTable) -> bool:
    """Return whether a table lets a scenario be played: words need a language model on the scenario's card."""
    if all(request.kind is not RequestKind.WORDS for request in scenario.requests):
        return True
    tiers = table.variants[scenario.variant].tiers
    return any(tier.lm_models for tier in tiers if scenario.card_gib in tier.vram_gib)


def scenario_tasks(
    before: dict[str, ScenarioResult], table: TierTable, share: float, progress: TellCells
) -> list[SimulationTask]:
    """Return a task for each scenario that the base has played: the change plays it under the base's table."""

    def compared(scenario: Scenario, simulation: Simulation) -> Iterator[Finding]:
        progress(f"Playing: {scenario.name}.")
        try:
            after = _played(scenario, table, simulation)
        except CODE_ERRORS as error:
            yield _Told(scenario)("G203", "played", f"cannot be played: {error}"[:300])
            return
        yield from scenario_findings(scenario, before[scenario.name], after, share)

    return [
        lambda simulation, scenario=scenario: compared(scenario, simulation)  # type: ignore[misc]
        for scenario in SCENARIOS
        if scenario.name in before
    ]


def scenario_findings(
    scenario: Scenario, before: ScenarioResult, after: ScenarioResult, share: float
) -> Iterator[Finding]:
    """Yield what a scenario is granted less, takes more and leaves behind; `share` more memory is tolerated."""
    told = _Told(scenario)
    for what in ("models", "language_models"):
        loaded, loads = getattr(before, what), getattr(after, what)
        if loads > loaded:
            yield told("G308", what, f"loads {loads} {what.replace('_', ' ')}; it loaded {loaded}", loaded, loads)
    for name, most in before.offers.items():
        offered = after.offers.get(name, 0)
        if offered < most:
            yield told("G513", name, f"offers {offered} as {name}; it offered {most}", most, offered)
    yield from _unseen(told, before, after)
    yield from _kept(told, scenario, before, after, share)
    for number, (then, now) in enumerate(zip_longest(before.made, after.made), start=1):
        if then is None or now is None or then.what != now.what:
            yield told("G203", "made", f"calls the service {_calls(after.made)}; it called it {_calls(before.made)}")
            return
        yield from _granted(told, scenario, number, then, now)
        yield from _taken(told, number, then, now, share)
    yield from _more(told, "after", "after all requests", before.stages_after, after.stages_after, share)


_GRANTED = {
    "batch": "songs",
    "duration_s": "seconds of the shortest song",
    "songs_per_pass": "songs at once",
    "thought_per_pass": "songs thought of at once",
}

_PASSES = ("songs_per_pass", "thought_per_pass")

_HELD = {"held_bytes": "on the card", "host_bytes": "in main memory"}


class _Told:
    """Makes the findings about a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def __call__(
        self,
        rule: str,
        what: str,
        said: str,
        before: FindingValue = None,
        after: FindingValue = None,
        stage: str = SCENARIO,
        component: str = "",
    ) -> Finding:
        name, size = self._scenario.name, f"{self._scenario.card_gib:g} GiB"
        return Finding(
            id=rule,
            variant=self._scenario.variant,
            tier=ANY_TIER,
            field=f"{SCENARIO}.{name.replace(' ', '_')}.{what}",
            before=before,
            after=after,
            stage=stage,
            component=component or what,
            message=f"{self._scenario.variant}, {name} ({self._scenario.entry}, {size}) {said}.",
        )


def _unseen(told: _Told, before: ScenarioResult, after: ScenarioResult) -> Iterator[Finding]:
    """What was seen of the base and is not of the change, which may have gone past what is watched."""
    for place in sorted(set(before.called) - set(after.called)):
        yield told("G203", "called", f"does not call {place}, which shows what it does; at the base it did", place)
    for name, where in _HELD.items():
        then, now = (sum(getattr(call, name) for call in (*result.made, result)) for result in (before, after))
        if then and not now:
            said = f"seems to hold nothing {where} between requests; at the base it did, so it is not seen"
            yield told("G203", name, said, then, now)


def _kept(
    told: _Told, scenario: Scenario, before: ScenarioResult, after: ScenarioResult, share: float
) -> Iterator[Finding]:
    """What stays after a request: weights may grow a little, what is kept of songs may not grow."""
    for name, where in _HELD.items():
        spared = 0 if name == "held_bytes" else MIB
        then, now = ([*(getattr(made, name) for made in v.made), getattr(v, name)] for v in (before, after))
        both = list(zip(then, now, strict=False))
        most = max(both, key=lambda pair: pair[1] - pair[0] * (1 + share))
        first, later = both[1:2], both[2:]
        if most[1] > most[0] * (1 + share) + spared:
            said = f"holds {mib(most[1])} {where} between two requests; it held {mib(most[0])}"
            yield told("G309", name, said, *most, component="activations")
        elif scenario.entry is not EntryPoint.COMMAND and later:
            # What was kept of the first request is forgiven: a cache may fill once.
            grown = max((now - first[0][1]) - (then - first[0][0]) for then, now in later)
            if grown > spared:
                said = f"holds {grown:,} bytes more {where} after further requests than after the first"
                yield told("G309", f"more_{name}", said, 0, grown, component="activations")
    if after.left_bytes > before.left_bytes:
        said = f"leaves {mib(after.left_bytes)} on the card when it ends; it left {mib(before.left_bytes)}"
        yield told("G309", "left_bytes", said, before.left_bytes, after.left_bytes, component="activations")


def _granted(
    told: _Told, scenario: Scenario, number: int, before: ServiceCall, after: ServiceCall
) -> Iterator[Finding]:
    for name, words in _GRANTED.items():
        then, now = getattr(before, name), getattr(after, name)
        said = f"is granted {now:g} {words} of request {number}; it was granted {then:g}"
        if now < then:
            yield told("G513", f"{number}.{name}", said, then, now, component=name)
        elif now > then and scenario.limited and name not in _PASSES:
            yield told("G514", f"{number}.{name}", f"{said}, as the table allows", then, now, component=name)
    for stage in before.stages.keys() - after.stages.keys() - {BETWEEN}:
        yield told(
            "G513", f"{number}.{stage}", f"leaves out {stage} of request {number}", stage=stage, component="stages"
        )
    if _slowness(after.decode_path) > _slowness(before.decode_path):
        said = f"decodes request {number} by {after.decode_path}; it did so by {before.decode_path}"
        yield told(
            "G513", f"{number}.decode_path", said, before.decode_path, after.decode_path, component="decode_path"
        )
    if before.knobs is not None and after.knobs is not None:
        for name, then, now in _worse_knobs(before.knobs, after.knobs):
            said = f"runs request {number} with {name} {as_text(now)}; it ran with {as_text(then)}"
            yield told("G513", f"{number}.{name}", said, then, now, component=name)
    if after.refusals > before.refusals:
        said = f"runs out of memory {after.refusals} times in request {number}; it did so {before.refusals} times"
        yield told("G514", f"{number}.refusals", said, before.refusals, after.refusals, component="refusals")


def _slowness(path: str) -> int:
    """The index of a way to decode, from the fastest; one that is not known comes after all."""
    known = [*DecodePath]
    return known.index(DecodePath(path)) if path in known else len(known)


def _worse_knobs(before: Knobs, after: Knobs) -> Iterator[tuple[str, str | None, str | None]]:
    """Each knob that saves more, and a smaller language model; a larger one may need a smaller weight format."""
    if lm_rank(after.lm) < lm_rank(before.lm):
        yield "lm", before.lm, after.lm
    for name in (*SAVING_KNOBS, "lm_quantization") if before.lm == after.lm else SAVING_KNOBS:
        then, now = getattr(before, name), getattr(after, name)
        if KNOBS[name].rank(now) > KNOBS[name].rank(then):
            yield name, then, now


def _taken(told: _Told, number: int, before: ServiceCall, after: ServiceCall, share: float) -> Iterator[Finding]:
    yield from _more(
        told, f"before_{number}", f"before request {number}", before.stages_before, after.stages_before, share
    )
    yield from _more(told, f"{number}", f"of request {number}", before.stages, after.stages, share)


def _more(told: _Told, place: str, when: str, before: StagePeaks, after: StagePeaks, share: float) -> Iterator[Finding]:
    for stage, owners in after.items():
        was = before.get(stage, {})
        then, now = sum(was.values()), sum(owners.values())
        if now > then + max(then * share, MIB):
            component = max(owners, key=lambda name: owners[name] - was.get(name, 0))
            said = f"takes {mib(now)} for {stage} {when}; it took {mib(then)}"
            field = f"{place}.{stage}.peak_allocated_bytes"
            yield told("G308", field, said, then, now, stage=stage, component=component)


def _calls(made: Sequence[ServiceCall]) -> str:
    return "for " + (", ".join(one.what for one in made) or "nothing")


def _played(scenario: Scenario, table: TierTable, simulation: Simulation) -> ScenarioResult:
    if not isinstance(simulation, HeadSimulation):
        raise TypeError("a scenario is played by the code of a tree, in a process of its own")
    try:
        return simulation.outcome_of(scenario, table)
    except HeadGoneError as error:
        raise HeadGoneError(f'the scenario "{scenario.name}" was not played to its end: {error}') from None
