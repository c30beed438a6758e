"""Simulation against reality: how far off the simulated card was, stage by stage, and on which side. Pure.

An error is (simulated - measured) / measured. Below zero the simulation promised memory that the card did not have,
so under-estimates are told apart.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from calibrate.campaign.run import describe_probe
from calibrate.probes.base import ProbedStage, Prober
from calibrate.record.measurement import Measurement, RecordedCardKind, RecordedProbe, RecordedStage
from calibrate.record.rules import CHOOSING
from calibrate.table.knobs import eager
from calibrate.verdict import Verdict
from calibrate.workload import Workload

WHOLE: Final = "total"
"""The stage name of what concerns a whole run."""

WITHIN: Final = 0.05
UNDER: Final = 0.02
"""How far a simulated smallest cap may be off, and how far below the card's."""

SHARE: Final = 0.95
"""Of the probes, how many have to be that near."""


class Quantity(StrEnum):
    """What is compared."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    SMALLEST_CAP = "smallest_cap"


class ComparedNumber(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a probe, in bytes. Of a smallest cap the card says that it lies from `measured_from` to `measured`.

    `probe` is an index into the record.
    """

    probe: int
    stage: str
    quantity: Quantity
    simulated: int
    measured: int
    measured_from: int

    @property
    def lowest_error(self) -> float:
        """Against the most that the card can have needed."""
        return (self.simulated - self.measured) / self.measured

    @property
    def highest_error(self) -> float:
        """Against the least that the card can have needed; without end where that may be nothing."""
        if not self.measured_from:
            return math.inf
        return (self.simulated - self.measured_from) / self.measured_from

    @property
    def error(self) -> float:
        """The least that it can be: 0 where the card leaves both signs open."""
        if self.lowest_error <= 0 <= self.highest_error:
            return 0.0
        return min(self.lowest_error, self.highest_error, key=abs)

    @property
    def distance(self) -> int:
        """Bytes between the simulated number and the nearest that the card can have needed."""
        return max(self.simulated - self.measured, self.measured_from - self.simulated, 0)

    @property
    def near(self) -> bool:
        """Whether it is near enough wherever between its two ends the card's number lies."""
        return self.lowest_error >= -UNDER and self.highest_error <= WITHIN

    @property
    def far(self) -> bool:
        """Whether it is too far off wherever that lies."""
        return self.highest_error < -UNDER or self.lowest_error > WITHIN


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """All pairs of a stage and a quantity: the mean of the absolute errors, and the one farthest off.

    `under` counts those that the simulation put too low, `worst_under` is the lowest of them, 0 where there is none.
    `farthest_bytes` is the largest distance in bytes, 0 where every number lies within what the simulation allows.
    """

    stage: str
    quantity: Quantity
    compared: int
    mean: float
    worst: float
    under: int
    farthest_bytes: int
    mean_under: float
    worst_under: float


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """How often both cards ended alike, and who was the one that fitted where they did not."""

    alike: int
    only_simulated_fits: int
    only_measured_fits: int


class CertificateAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """How many certificates of a record the simulation would have found too: the same song fits, the next one fails."""

    equal: int
    different: int


class Nearness(msgspec.Struct, frozen=True, kw_only=True):
    """Smallest caps: how many are near enough and how many are not; of the `open` ones the card's probes do not say."""

    near: int
    far: int
    open: int

    @property
    def reached(self) -> bool:
        """Whether enough of those that can be judged are near; where none can, no."""
        return self.near > 0 and self.near >= SHARE * (self.near + self.far)


class Reality(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `python -m calibrate reality`. `pairs` are all comparisons, the worst under-estimates first.

    `unanswered` are the probes that a simulated card cannot be asked about.
    """

    record: str
    card: str
    errors: tuple[Errors, ...]
    verdicts: Verdicts
    boundaries: CertificateAgreement
    caps: Nearness
    unanswered: int
    pairs: tuple[ComparedNumber, ...]


def face(record: Measurement, simulation: Prober) -> Reality:
    """Ask a simulation everything that a real card was asked, and compare.

    Raises `NotMeasuredError` for a record of a simulated card, which says nothing about a real one.
    """
    if record.card.kind is RecordedCardKind.SIMULATED:
        raise NotMeasuredError(f"this record is of the {record.card.name}; give one that was measured on a real card")
    pairs: list[ComparedNumber] = []
    ends = dict.fromkeys(("alike", "only_simulated_fits", "only_measured_fits"), 0)
    unanswered = 0
    alike: dict[int, bool] = {}
    for number, probe in enumerate(record.probes):
        try:
            answer = simulation.probe(eager(probe.knobs), probe.workload, max(probe.allocator_bytes, 1))
        except NotMeasuredError:
            unanswered += 1
            continue
        fits = answer.verdict is Verdict.FITS
        alike[number] = fits == probe.counts
        ends["alike" if fits == probe.counts else "only_simulated_fits" if fits else "only_measured_fits"] += 1
        # What a run held that did not end depends on where it broke off.
        if fits and probe.counts:
            pairs += _stage_pairs(number, probe.stages, answer.stages)
    pairs += _cap_pairs(record.probes, simulation)
    caps = [pair for pair in pairs if pair.quantity is Quantity.SMALLEST_CAP]
    near, far = sum(pair.near for pair in caps), sum(pair.far for pair in caps)
    return Reality(
        record=record.digest,
        card=record.card.name,
        errors=tuple(_summed_up(pairs)),
        verdicts=Verdicts(**ends),
        boundaries=_boundaries(record, alike),
        caps=Nearness(near=near, far=far, open=len(caps) - near - far),
        unanswered=unanswered,
        pairs=tuple(sorted(pairs, key=lambda pair: pair.error)),
    )


def _boundaries(record: Measurement, alike: Mapping[int, bool]) -> CertificateAgreement:
    """By whether the probes ended `alike`; certificates on what cannot be simulated count on neither side."""
    ends = [
        [alike.get(index) for index in (certificate.fits, certificate.fails) if index is not None]
        for certificate in record.certificates
    ]
    equal = sum(all(found) for found in ends)
    return CertificateAgreement(equal=equal, different=sum(False in found for found in ends))


def place_of(pair: ComparedNumber, record: Measurement) -> str:
    """Which probe a comparison is about, for a line on the screen."""
    probe = record.probes[pair.probe]
    return describe_probe(probe.knobs, probe.workload, probe.cap_bytes)


def measured_cap(probes: Sequence[RecordedProbe]) -> tuple[int, int]:
    """Between which bytes a card's smallest cap lies, from all its runs of one question; (0, 0) where none fitted.

    What a run that fitted had reserved is enough: under a cap of so much the allocator takes the same course
    (`calibrate.probes.simulated.replay.smallest_cap` has the proof), and stages that look at free memory take less.
    Tensors that do not depend on the cap are needed, and more than any cap that was not enough. Where noise lets the
    two cross, what ran is believed.
    """
    fitted = [probe for probe in probes if probe.counts and probe.stages]
    enough = min((max(stage.peak_reserved_bytes for stage in probe.stages) for probe in fitted), default=0)
    needed = [s.peak_allocated_bytes for probe in fitted for s in probe.stages if s.name not in CHOOSING]
    refused = [probe.allocator_bytes + 1 for probe in probes if probe.verdict is Verdict.OOM]
    return min(enough, max(needed + refused, default=0)), enough


def _stage_pairs(
    number: int, measured: Sequence[RecordedStage], simulated: Sequence[ProbedStage]
) -> Iterator[ComparedNumber]:
    by_name = {stage.name: stage for stage in simulated}
    for stage in measured:
        if stage.name not in by_name:
            continue
        peaks = {
            Quantity.ALLOCATED: (stage.peak_allocated_bytes, _allocated(by_name[stage.name], stage)),
            Quantity.RESERVED: (stage.peak_reserved_bytes, by_name[stage.name].peak_reserved_bytes),
        }
        for quantity, (real, model) in peaks.items():
            if real:
                yield ComparedNumber(
                    probe=number,
                    stage=stage.name,
                    quantity=quantity,
                    simulated=model,
                    measured=real,
                    measured_from=real,
                )


def _allocated(simulated: ProbedStage, measured: RecordedStage) -> int:
    """The simulated peak that is nearest to a card's: libraries' workspaces come from PyTorch's allocator as well.

    Which of them coincide with the peak of the tensors a simulation does not know, so it allows for all or none.
    """
    least = simulated.peak_allocated_bytes
    return min(max(measured.peak_allocated_bytes, least), least + simulated.allowance_bytes)


def _cap_pairs(probes: Sequence[RecordedProbe], simulation: Prober) -> Iterator[ComparedNumber]:
    """One a question, however many caps it was asked under."""
    asked: dict[tuple[Knobs, Workload], list[int]] = {}
    for number, probe in enumerate(probes):
        asked.setdefault((probe.knobs, probe.workload), []).append(number)
    for (knobs, workload), numbers in asked.items():
        least, enough = measured_cap([probes[number] for number in numbers])
        if not enough:
            continue
        try:
            smallest = simulation.smallest_caps(eager(knobs), workload)[WHOLE]
        except NotMeasuredError:
            continue
        yield ComparedNumber(
            probe=numbers[0],
            stage=WHOLE,
            quantity=Quantity.SMALLEST_CAP,
            simulated=smallest,
            measured=enough,
            measured_from=least,
        )


def _summed_up(pairs: Sequence[ComparedNumber]) -> Iterator[Errors]:
    """In the order in which stages and quantities first came."""
    groups: dict[tuple[str, Quantity], list[float]] = {}
    farthest: dict[tuple[str, Quantity], int] = {}
    for pair in pairs:
        key = pair.stage, pair.quantity
        groups.setdefault(key, []).append(pair.error)
        farthest[key] = max(farthest.get(key, 0), pair.distance)
    for (stage, quantity), errors in groups.items():
        under = [error for error in errors if error < 0]
        yield Errors(
            stage=stage,
            quantity=quantity,
            compared=len(errors),
            mean=sum(map(abs, errors)) / len(errors),
            worst=max(errors, key=abs),
            under=len(under),
            farthest_bytes=farthest[stage, quantity],
            mean_under=sum(under) / len(under) if under else 0.0,
            worst_under=min(under, default=0.0),
        )
