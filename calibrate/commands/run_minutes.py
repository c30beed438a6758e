"""How long a campaign will take: timed at its start on the simulated card, reckoned for a real one."""

import os
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Final

from msgspec import UNSET

from acestep.errors import InvalidInputError, UsageError
from acestep.hardware.detection import detect
from calibrate.campaign.cost import START_S, TRACE, cost_on
from calibrate.campaign.expected import Expect, as_recorded, everything_fits
from calibrate.campaign.run import CampaignScope
from calibrate.executors.local import usable_processes
from calibrate.executors.questions import ProbeTask, Question
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, RecordedCardKind, load_measurement
from calibrate.timing.cards import CardSpeed, card_speed
from calibrate.timing.roofline import totals_seconds

USUAL_CARD: Final = "RTX 3060"
"""The card that minutes are reckoned for where this machine has none with a known speed."""

LONG_MIN: Final = 90
"""Minutes from which on hours are said too."""

QUICKEST_SHARE: Final = 0.5
LONGEST_SHARE: Final = 2.0
"""The range around reckoned minutes: no campaign on a real card has been timed yet."""


def simulated_records(folder: Path, scope: CampaignScope) -> list[Measurement]:
    """Return the simulated records of a folder for the variant of a campaign, without files that cannot be read."""
    found = []
    for path in sorted(folder.glob(f"*{scope.variant}*.json")):
        try:
            record = load_measurement(path)
        except InvalidInputError:
            continue
        variants = {certificate.knobs.variant for certificate in record.certificates}
        simulated = record.card.kind is RecordedCardKind.SIMULATED and record.card.system is scope.system
        if simulated and scope.variant in variants:
            found.append(record)
    return found


def expectation(records: Sequence[Measurement]) -> Expect:
    """Return what to expect of a campaign's answers: what records found, or that everything fits."""
    return as_recorded(records) if records else everything_fits


def timed_minutes(tasks: Sequence[ProbeTask], prober: Simulation) -> str:
    """Return how long a simulated campaign takes, after one of its questions was asked and timed."""
    question = next(task for task in tasks if isinstance(task, Question))
    # What the first run loads is not needed again.
    prober.probe(question.knobs, question.workload, question.cap_bytes)
    other = next((t for t in tasks if isinstance(t, Question) and t.workload != question.workload), question)
    started = time.process_time()
    prober.probe(other.knobs, other.workload, other.cap_bytes)
    seconds = (time.process_time() - started) / TRACE * cost_on(RecordedCardKind.SIMULATED).ahead(tasks)
    return f"about {_minutes(seconds / usable_processes())} on {usable_processes()} idle cores (one run was timed)"


def reckoned_minutes(tasks: Sequence[ProbeTask], records: Sequence[Measurement]) -> str:
    """Return how long a campaign takes on the card here, or on a usual one, from the recorded work of its runs."""
    card, named = _card_here()
    work = {(probe.knobs, probe.workload): probe for record in records for probe in record.probes}
    seconds = 0.0
    for task in tasks:
        probe = work.get((task.knobs, task.workload)) if isinstance(task, Question) else None
        seconds += START_S
        if probe is not None:
            seconds += sum(totals_seconds(stage.work, card) for stage in probe.stages if stage.work is not UNSET)
        elif isinstance(task, Question):
            seconds += cost_on(RecordedCardKind.CUDA).of(task) - START_S
    return (
        f"{_minutes(QUICKEST_SHARE * seconds)} to {_minutes(LONGEST_SHARE * seconds)} on {named}"
        " (reckoned from its published speed; no campaign on a real card has been timed yet)"
    )


def _card_here() -> tuple[CardSpeed, str]:
    try:
        here = detect(os.environ)
        card = card_speed(here.name, here.nameplate_gib)
    except UsageError:
        card = card_speed(USUAL_CARD)
        return card, f"a card such as the {card.name}"
    return card, f"the {card.name}"


def _minutes(seconds: float) -> str:
    whole = max(1, ceil(seconds / 60))
    return f"{whole} min" if whole < LONG_MIN else f"{whole // 60} h {whole % 60} min"
