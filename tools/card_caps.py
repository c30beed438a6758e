"""Compares simulated smallest caps with this card's: each question is asked just above and just below.

python -m tools.card_caps -o FILE [--variant turbo] [--resume]

A smallest cap S of the simulation is near enough if the card fits at S / (1 - 2 %) and does not at S / (1 + 5 %): two
probes. If one of them shows otherwise, more follow, until the card's own smallest cap is known to 1 %. FILE is a
measurement without certificates: `python -m calibrate reality FILE` prints the errors. An interrupted run continues
from its journal.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from acestep.errors import AceStepError, Exit, NotMeasuredError
from acestep.knobs import Knobs, Variant
from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.output_file import output_file
from acestep.units import ceil_div
from calibrate.campaign.journal import open_journal
from calibrate.campaign.probers import alone_on, recorded_card, simulation_of
from calibrate.campaign.reality import UNDER, WHOLE, WITHIN
from calibrate.campaign.run import describe_probe
from calibrate.executors.cards import identity_of
from calibrate.executors.questions import Probed, Question
from calibrate.files import digest, pretty_json
from calibrate.fingerprint import fingerprint
from calibrate.probes.base import CapMethod, Prober
from calibrate.record.measurement import RecordedProbe, measurement_of
from calibrate.table.knobs import ladder
from calibrate.table.policy import Policy, load_policy
from calibrate.workload import Workload

NARROW: Final = 0.01
"""Share of the smallest cap to which it is determined if the simulation is wrong."""

STEP: Final = 1.1
"""Factor by which the search goes beyond the caps asked so far."""

WORKLOADS: Final = tuple(
    Workload(batch=batch, duration_s=seconds) for batch, seconds in ((1, 60.0), (1, 600.0), (4, 120.0), (8, 240.0))
)


def next_cap(simulated: int, known: Mapping[int, bool]) -> int:
    """Return the next cap to ask a card, given whether earlier ones fitted; 0 if no more is needed.

    Caps are multiples of the segment grain, the only sizes at which an allocator can behave differently.
    """
    above = math.floor(simulated / (1 - UNDER)) // SEGMENT_GRAIN * SEGMENT_GRAIN
    below = ceil_div(math.ceil(simulated / (1 + WITHIN)) - 1, SEGMENT_GRAIN) * SEGMENT_GRAIN
    if unasked := [cap for cap in (above, below) if cap not in known]:
        return unasked[0]
    if known[above] and not known[below]:
        return 0
    fitting, failing = [cap for cap, fits in known.items() if fits], [cap for cap, fits in known.items() if not fits]
    if not fitting:
        return _up(max(failing) * STEP)
    enough = min(fitting)
    too_little = max((cap for cap in failing if cap < enough), default=0)
    if not too_little:
        return max(SEGMENT_GRAIN, int(enough / STEP) // SEGMENT_GRAIN * SEGMENT_GRAIN) if enough > SEGMENT_GRAIN else 0
    middle = _up((too_little + enough) / 2)
    return middle if enough - too_little > NARROW * enough and too_little < middle < enough else 0


def questions(policy: Policy, variant: Variant) -> Iterator[tuple[Knobs, Workload]]:
    """Yield every placement of the weights, with short and long songs, one and many; models load once."""
    for knobs in ladder(policy, variant):
        for workload in WORKLOADS:
            yield knobs, workload


def ask_all(
    asked: Sequence[tuple[Knobs, Workload]],
    simulated: Callable[[Knobs, Workload], int],
    ask: Callable[[Question], RecordedProbe],
    largest: int,
) -> Iterator[RecordedProbe]:
    """Yield every probe that is needed, none above the `largest` cap that the card has memory for."""
    for knobs, workload in asked:
        smallest = simulated(knobs, workload)
        known: dict[int, bool] = {}
        while 0 < (cap := next_cap(smallest, known)) <= largest:
            probe = ask(Question(knobs=knobs, workload=workload, cap_bytes=cap))
            known[cap] = probe.counts
            yield probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on this machine's card; an error is printed as a sentence."""
    options = _options(arguments)
    try:
        _measure(options.output, Variant(options.variant), resume=options.resume)
    except AceStepError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.OK


def _measure(output: Path, variant: Variant, *, resume: bool) -> None:
    policy = load_policy()
    executor = alone_on("cuda")
    card, simulation = executor.card, simulation_of(recorded_card(executor), version("torch"))
    holds_for = fingerprint(card=identity_of(card), cap_method=CapMethod.FRACTION, budget=digest(policy.budget))
    try:
        with output_file(output) as write, open_journal(output, holds_for, resume=resume) as journal:

            def ask(question: Question) -> RecordedProbe:
                entry = journal.entries.get(question)
                if not isinstance(entry, Probed):
                    entry = Probed(task=question, probe=probed(executor.prober, question))
                    journal.keep(entry)
                told = describe_probe(question.knobs, question.workload, question.cap_bytes)
                sys.stderr.write(f"{told}: {entry.probe.verdict}\n")
                return entry.probe

            asked = list(questions(policy, variant))
            room = card.total_bytes * 9 // 10
            probes = tuple(ask_all(asked, lambda *one: simulation.smallest_caps(*one)[WHOLE], ask, room))
            found = measurement_of(
                recorded_card(executor), probes, (), cap_method=CapMethod.FRACTION, conditions=executor.conditions
            )
            write(pretty_json(found))
            journal.remove()
    finally:
        executor.close()


def probed(prober: Prober, question: Question) -> RecordedProbe:
    """Return a card's answer; raise `NotMeasuredError` if it says nothing about the fit."""
    result = prober.probe(question.knobs, question.workload, question.cap_bytes)
    if not result.verdict.answers:
        raise NotMeasuredError(f"a probe ended {result.verdict} ({'; '.join(result.warnings)}); give the command again")
    return RecordedProbe.of(question.knobs, question.workload, result, timed=True)


def _up(n_bytes: float) -> int:
    return math.ceil(n_bytes / SEGMENT_GRAIN) * SEGMENT_GRAIN


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--variant", choices=[str(variant) for variant in Variant], default="turbo")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
