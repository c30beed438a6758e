"""The time left of a campaign: told before the first answer, and right within a factor of two from a tenth on."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from acestep.budgets import System
from acestep.knobs import Variant
from calibrate.campaign.boundary import SIMULATED
from calibrate.campaign.cost import SimulatedCost, cost_on
from calibrate.campaign.expected import as_recorded, everything_fits
from calibrate.campaign.pace import Pace
from calibrate.campaign.run import CampaignScope, expected_tasks, run_campaign
from calibrate.commands.run_minutes import reckoned_minutes, simulated_records, timed_minutes
from calibrate.executors.answers import simulated_answer
from calibrate.executors.base import Likely
from calibrate.executors.local import trace_of
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, ProbeTask
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED
from calibrate.record.measurement import Measurement, load_measurement
from calibrate.table.policy import load_policy
from tests.fakes import AnalyticProber

POLICY = load_policy()
RECORDS = Path(__file__).parents[2] / "tiers" / "measurements"
SECONDS = json.loads((Path(__file__).parents[1] / "fixtures" / "campaign_seconds.json").read_text())
"""CPU seconds of a campaign of turbo on the simulated card, by language model, for new traces and for known ones."""


IMPORTS_S = 25.0
"""What the first answer waits for besides, on a busy machine."""


class Recorded:
    """Answers as a record does, and moves its clock by seconds that such an answer took when a campaign was timed."""

    device = "simulated"
    card = SIMULATED_CARD
    conditions = UNCONDITIONED

    def __init__(self, record: Measurement) -> None:
        self.now = 0.0
        self._probes = {probe.question: probe for probe in record.probes}
        self._traced: set[ProbeTask] = set()
        self._draw = random.Random(record.digest)  # noqa: S311 it draws times, not a secret

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        task = wanted[0]
        if self.now == 0.0:
            self.now = IMPORTS_S
        if isinstance(task, Fit):
            self.now += SECONDS["fit"]
            return Fitted(task=task, coefficients={})
        kind = "again" if trace_of(task) in self._traced else "first"
        self._traced.add(trace_of(task))
        self.now += self._draw.choice(SECONDS[kind][task.knobs.lm or "none"])
        return Probed(task=task, probe=self._probes[task.knobs, task.workload, task.cap_bytes])

    def close(self) -> None:
        """Nothing was started."""


def scope_of(variant: Variant, system: System = System.LINUX) -> CampaignScope:
    return CampaignScope(variant=variant, sizes_gib=POLICY.certified_sizes_gib, system=system)


@pytest.mark.parametrize(
    ("name", "expected", "variant", "system"),
    [
        ("simulated-turbo", "simulated-turbo", Variant.TURBO, System.LINUX),
        ("simulated-xl-base", "simulated-xl-base", Variant.XL_BASE, System.LINUX),
        # A card that answers otherwise than the record that its time is foretold by.
        ("simulated-xl-turbo-windows", "simulated-xl-turbo", Variant.XL_TURBO, System.WINDOWS),
    ],
)
def test_from_a_tenth_on_the_time_left_is_right_within_a_factor_of_two(
    name: str, expected: str, variant: Variant, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Recorded(load_measurement(RECORDS / f"{name}.json"))
    expect = as_recorded([load_measurement(RECORDS / f"{expected}.json")])
    estimates: list[tuple[float, float]] = []

    class ToldPace(Pace):
        def step(self, task: ProbeTask) -> str:
            line = super().step(task)
            estimates.append((card.now, self.left_s))
            return line

    def told_pace(*given: object) -> Pace:
        return ToldPace(*given, clock=lambda: card.now)  # type: ignore[arg-type]

    monkeypatch.setattr("calibrate.campaign.run.Pace", told_pace)
    lines: list[str] = []
    run_campaign(card, POLICY, scope_of(variant, system), lines.append, expect=expect)
    total = card.now
    tenth = IMPORTS_S + 0.1 * (total - IMPORTS_S)
    judged = [(now, left) for now, left in estimates if tenth <= now <= 0.95 * total]
    assert len(judged) > 50
    for now, left in judged:
        assert 0.5 <= left / (total - now) <= 2, f"after {now:.0f} of {total:.0f} s: {left:.0f} s left"
    assert re.match(r"\[0 of about \d+\]", lines[0]), lines[0]


def test_the_first_line_comes_before_the_first_question() -> None:
    happened: list[str] = []

    class Silent(Recorded):
        def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
            happened.append("asked")
            return super().one_of(wanted, likely)

    card = Silent(load_measurement(RECORDS / "simulated-turbo.json"))
    run_campaign(card, POLICY, scope_of(Variant.TURBO), lambda _: happened.append("told"))
    assert happened[:3] == ["told", "asked", "told"]


def test_what_a_record_foretells_is_nearly_what_a_campaign_like_it_asks() -> None:
    record = load_measurement(RECORDS / "simulated-turbo.json")
    tasks = expected_tasks(POLICY, scope_of(Variant.TURBO), SIMULATED, as_recorded([record]))
    asked = {task for task in tasks if not isinstance(task, Fit)}
    foretold = {(task.knobs, task.workload, task.cap_bytes) for task in asked}
    questions = {probe.question for probe in record.probes}
    # The search inside a boundary looks at peaks, which are not foretold.
    assert len(foretold & questions) >= 0.9 * len(questions)
    assert len(foretold) <= 1.2 * len(questions)
    assert len(expected_tasks(POLICY, scope_of(Variant.TURBO), SIMULATED, everything_fits)) < len(tasks)


def test_a_trace_is_counted_once_and_looking_ahead_changes_nothing() -> None:
    tasks = expected_tasks(POLICY, scope_of(Variant.TURBO), SIMULATED, everything_fits)
    cost = SimulatedCost()
    ahead = cost.ahead(tasks)
    assert cost.ahead(tasks) == ahead
    assert sum(map(cost.of, tasks)) == pytest.approx(ahead)
    assert cost.ahead(tasks) < ahead


def test_minutes_are_timed_on_the_simulated_card_and_reckoned_for_a_real_one() -> None:
    scope = scope_of(Variant.TURBO)
    records = simulated_records(RECORDS, scope)
    assert {probe.knobs.variant for record in records for probe in record.probes} == {Variant.TURBO}
    tasks = expected_tasks(POLICY, scope, SIMULATED, as_recorded(records))
    prober = AnalyticProber()
    assert re.fullmatch(r"about \d+ min on \d+ idle cores .*", timed_minutes(tasks, prober))
    assert len(prober.asked) == 2
    said = reckoned_minutes(tasks, records)
    least, most = (60 * int(hours or 0) + int(rest) for hours, rest in re.findall(r"(?:(\d+) h )?(\d+) min", said))
    assert 0 < least < most
    assert " h " in said, "people count long times in hours"
    assert "reckoned" in said
    assert simulated_answer(prober, tasks[0])
    assert cost_on("cuda").of(tasks[0]) > 0
