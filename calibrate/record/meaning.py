"""The rules about what a measurement means: what certifies a limit, and whether a card and its driver can exist.

Each is registered with those of `calibrate.record.rules`.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from acestep.hardware.card_sizes import LEAST_SHARE, card_model, catalogued
from acestep.limits.capabilities import AMPERE
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS
from acestep.stage import Stage
from acestep.units import GIB, gib
from calibrate.probes.base import SIMULATED_CARD
from calibrate.record.measurement import Measurement, RecordedCard, RecordedCardKind
from calibrate.record.rules import RecordProblem, RuleLevel, numbered_probes, record_rule
from calibrate.search import WORST_SPURIOUS_RATE, failures_needed
from calibrate.verdict import Verdict
from calibrate.workload import PROBE_STEPS, Workload

_MOST_ASKED: Final = 100
"""More answers to one question than any campaign asks for: it stops when the answer is certain."""

_MOST_STEPS: Final = 200
"""The largest number of denoising steps that a request may have."""

_CAPABILITIES: Final = (
    (r"\brtx \d+[a-z]?( sff)? ada\b", ((8, 9),)),
    (r"\b(rtx 50[5-9]0|rtx pro \d+[a-z]?( sff)? blackwell)\b", ((12, 0),)),
    (r"\b(rtx 40[5-9]0|l2|l4|l20|l40s?)\b", ((8, 9),)),
    (r"\brtx 3050 a\b", ((8, 6), (8, 9))),
    (r"\b(rtx 30[5-9]0|rtx 2050|rtx a\d+|a2|a10g?|a16|a40)\b", ((8, 6),)),
    (r"\b(a30|a100|a800)\b", ((8, 0),)),
    (r"\b(h100|h20|h200|h800|gh200)\b", ((9, 0),)),
    (r"\b(b100|b200|gb200|b300|gb300)\b", ((10, 0), (10, 3))),
    (r"\b(rtx 20[6-8]0|gtx 16\d\d|t4g?|titan rtx|rtx [34568]000)\b", ((7, 5),)),
)
"""Names of NVIDIA's cards and their compute capability, from the maker's list of CUDA cards; the first that matches.

The RTX 5000 Ada is no RTX 50, the RTX 2050 is an Ampere, and there are two kinds of RTX 3050 A.
"""

_OLDEST_DRIVERS: Final = (((10, 0), 570), ((8, 9), 520), ((8, 0), 450))
"""The first driver branch that knows cards from a compute capability on, from the maker's release notes."""

_OLDEST_CUDA: Final = (((10, 0), 128), ((8, 9), 118), ((8, 0), 110))
"""The first CUDA, as in the names of PyTorch's builds, that compiles for cards from a compute capability on."""

_CUDA_BUILD: Final = re.compile(r"\d+\.\d+[.\w]*(?:\+(?:cu(\d{3}))?[.\w]*)?")
"""A version of PyTorch, and the CUDA that it was built with if it says so."""

_LONGEST_STAGE_S: Final = 24 * 3600
"""More seconds than any stage takes."""

_SLICE_OF: Final = re.compile(r"\b(\d+)gb\b[^ ]*$")
"""The size of a part of a card, at the end of its name."""

_OTHER_BUILDS: Final = re.compile(r"\+(cpu|rocm|xpu)")
"""PyTorch's builds that cannot run an NVIDIA card."""


_SLICE: Final = " MIG "
"""What follows it in a name is a part of a card."""


@record_rule("V118", "a card that was measured computes in bfloat16, as NVIDIA cards do from compute capability 8.0 on")
def _number_format(record: Measurement) -> Iterator[RecordProblem]:
    if record.card.kind is not RecordedCardKind.SIMULATED and record.card.capability < AMPERE:
        yield (
            "card.compute_capability",
            f"is {record.card.compute_capability}: in float32 everything takes twice as much, and such a card already"
            " has the limits of one of half its size",
        )


@record_rule("V119", "a virtual card says so in its kind, its name, its uuid and its driver, and no other card does")
def _virtual(record: Measurement) -> Iterator[RecordProblem]:
    card, marks = record.card, record.card.virtual_marks
    if card.kind is not RecordedCardKind.VIRTUAL:
        for field, text in marks.items():
            yield f"card.{field}", f"is {text}, the mark of a virtual card; on a {card.kind} card no number rests on it"
        return
    for field in ("name", "uuid", "driver"):
        if field not in marks:
            yield f"card.{field}", f"is {getattr(card, field) or 'missing'}, which is not that of a virtual card"


@record_rule(
    "V120",
    "a limit rests on the longest prompt, the steps of a probe, and songs from text",
    of_promises=True,
)
def _certifying_work(record: Measurement) -> Iterator[RecordProblem]:
    for number, certificate in enumerate(record.certificates):
        for side in ("fits", "fails"):
            index = getattr(certificate, side)
            work = record.probes[index].workload if index is not None else None
            if work is not None and not _certifies(work):
                yield f"certificates[{number}].{side}", f"is probe {index}, whose workload is not that of a limit"


def _certifies(work: Workload) -> bool:
    longest = (work.lyric_tokens, work.text_tokens) == (MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS)
    from_text = work.task is msgspec.UNSET and work.reference_seconds is msgspec.UNSET
    return longest and from_text and work.steps >= PROBE_STEPS


@record_rule("V121", "a run that ended has thought exactly where it has a language model")
def _thinking_has_a_stage(record: Measurement) -> Iterator[RecordProblem]:
    for place, probe in numbered_probes(record):
        thought = any(stage.name == Stage.THINK for stage in probe.stages)
        if probe.verdict in (Verdict.FITS, Verdict.DEGRADED) and thought != probe.workload.with_lm:
            yield f"{place}.stages", f"{'have' if thought else 'lack'} a think stage, with_lm is {not thought}"


@record_rule("V122", "an out-of-memory that a limit rests on was seen again on the real card", of_promises=True)
def _failures_are_repeated(record: Measurement) -> Iterator[RecordProblem]:
    if record.card.kind is not RecordedCardKind.CUDA:
        return
    needed = failures_needed(WORST_SPURIOUS_RATE)
    for number, certificate in enumerate(record.certificates):
        probe = record.probes[certificate.fails] if certificate.fails is not None else None
        if probe is not None and probe.verdict is Verdict.OOM and probe.asked < needed:
            yield f"certificates[{number}].fails", f"was asked {probe.asked} times, {needed} are needed"


@record_rule("V123", "a card's kind, name, compute capability, driver and PyTorch's build agree", of_promises=True)
def _card_agrees(record: Measurement) -> Iterator[RecordProblem]:
    card, torch = record.card, record.environment.torch
    if card.kind is RecordedCardKind.SIMULATED:
        if card.driver or card.name != SIMULATED_CARD.name:
            yield (
                "card.name",
                f"is {card.name} with driver {card.driver or 'none'}; a {SIMULATED_CARD.name} has neither",
            )
        return
    if card.kind is RecordedCardKind.VIRTUAL:
        return
    if _OTHER_BUILDS.search(torch):
        yield "environment.torch", f"is {torch}, a build that runs no NVIDIA card"
    elif (build := _CUDA_BUILD.fullmatch(torch)) is None or int(build[1] or 999) < _least(_OLDEST_CUDA, card):
        yield "environment.torch", f"is {torch}, which is no build for this card"
    plain = re.sub(r"[^a-z0-9]+", " ", card.name.lower())
    expected = next((found for pattern, found in _CAPABILITIES if re.search(pattern, plain)), (card.capability,))
    if card.capability not in expected:
        yield "card.compute_capability", f"is {card.compute_capability}, which no {card.name} has"
    oldest = _least(_OLDEST_DRIVERS, card)
    branch = re.match(r"(\d{3})\.\d+", card.driver)
    if card.driver and (branch is None or int(branch[1]) < oldest):
        yield "card.driver", f"is {card.driver}, expected NVIDIA's {oldest} or newer for this card"


def _least(by_capability: tuple[tuple[tuple[int, int], int], ...], card: RecordedCard) -> int:
    """Return the first number of a list, newest cards first, whose capability the card has; 0 if it has none."""
    return next((number for first, number in by_capability if card.capability >= first), 0)


@record_rule("V124", "a card has a size in which cards of its name are sold", of_promises=True)
def _size_is_sold(record: Measurement) -> Iterator[RecordProblem]:
    card, sizes = record.card, _sizes(record.card.name)
    slice_of = _SLICE in card.name
    sold = any(LEAST_SHARE * size <= card.total_bytes / GIB <= size * 1.005 for size in sizes)
    part = _SLICE_OF.search(card.name) if slice_of else None
    if part is not None and card.total_bytes / GIB > int(part[1]):
        yield "card.total_bytes", f"is {gib(card.total_bytes)}; a {card.name} has at most {part[1]} GiB"
    if card.kind is RecordedCardKind.CUDA and sizes and not sold and not slice_of:
        told = ", ".join(f"{size} GB" for size in sizes)
        yield "card.total_bytes", f"is {gib(card.total_bytes)}; a {card.name} has {told}"


@record_rule("V125", "the card's name is in the catalogue; an unknown card can only lower a promise", RuleLevel.WARNING)
def _known_card(record: Measurement) -> Iterator[RecordProblem]:
    if not is_known_card(record):
        yield "card.name", f"is {record.card.name}, which the catalogue of cards does not have"


def is_known_card(record: Measurement) -> bool:
    """Return whether a record is of a simulated or virtual card, or of one that the catalogue has."""
    return record.card.kind is not RecordedCardKind.CUDA or bool(_sizes(record.card.name))


def catalogued_model(card: RecordedCard) -> tuple[str, int] | None:
    """Return the model of a real card and the size of its slice; None for a card that the catalogue does not have.

    Neither driver nor memory nor the spelling of a name makes two cards of one model different.
    """
    return card_model(card.name) if card.kind is RecordedCardKind.CUDA and _sizes(card.name) else None


def _sizes(name: str) -> tuple[int, ...]:
    return catalogued(name.partition(_SLICE)[0])


@record_rule("V126", "what the context withheld and the cap fit on the card together")
def _withheld_fits(record: Measurement) -> Iterator[RecordProblem]:
    total = record.card.total_bytes
    for place, probe in numbered_probes(record):
        if probe.withheld_bytes and (not total or probe.withheld_bytes + probe.cap_bytes > total):
            told = f"is {gib(probe.withheld_bytes)} beside a cap of {gib(probe.cap_bytes)} on a card of {gib(total)}"
            yield f"{place}.withheld_bytes", told


@record_rule("V127", "counts are possible: songs of a stage, times asked, and steps")
def _possible_counts(record: Measurement) -> Iterator[RecordProblem]:
    simulated = record.card.kind is RecordedCardKind.SIMULATED
    for place, probe in numbered_probes(record):
        for number, stage in enumerate(probe.stages):
            most = probe.songs_per_pass if stage.name == Stage.DENOISE else probe.workload.batch
            if not 1 <= stage.songs_per_pass <= most:
                yield f"{place}.stages[{number}].songs_per_pass", f"is {stage.songs_per_pass}, at most {most} can be"
        if probe.asked > (1 if simulated else _MOST_ASKED):
            yield f"{place}.asked", f"is {probe.asked}, on a {record.card.kind} card"
        if probe.workload.steps > _MOST_STEPS:
            yield f"{place}.workload.steps", f"is {probe.workload.steps}, a request may have {_MOST_STEPS}"


@record_rule("V129", "only a simulated card counts the work of a stage")
def _counted_work(record: Measurement) -> Iterator[RecordProblem]:
    if record.card.kind is not RecordedCardKind.SIMULATED:
        for place, probe in numbered_probes(record):
            for number, stage in enumerate(probe.stages):
                if stage.work is not msgspec.UNSET:
                    yield f"{place}.stages[{number}].work", f"is there, on a {record.card.kind} card"


@record_rule("V128", "digests of cards are of real ones, each once")
def _serials(record: Measurement) -> Iterator[RecordProblem]:
    card = record.card
    if card.serials and card.kind is not RecordedCardKind.CUDA:
        yield "card.serials", f"are {len(card.serials)} on a {card.kind} card"
    if list(card.serials) != sorted(set(card.serials)):
        yield "card.serials", "are not in order, each once"


@record_rule("V130", "what else was on a card, and the times of a run, are possible")
def _possible_conditions(record: Measurement) -> Iterator[RecordProblem]:
    there, total = record.conditions, record.card.total_bytes
    taken = there.foreign_bytes + there.context_bytes
    if taken > total:
        yield "conditions", f"are {gib(taken)} of others and of the context on a card of {gib(total)}"
    if there.returned_s > _LONGEST_STAGE_S:
        yield "conditions.returned_s", f"is {there.returned_s:g}, more than a day"
    for place, probe in numbered_probes(record):
        for number, stage in enumerate(probe.stages):
            if stage.seconds > _LONGEST_STAGE_S:
                yield f"{place}.stages[{number}].seconds", f"is {stage.seconds:g}, more than a day"
