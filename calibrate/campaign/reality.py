"""Compares simulation and card: the errors of the simulated card, stage by stage, with their sign. Pure.

An error is (simulated - measured) / measured. Below zero the simulation promised memory that the card did not have, so
under-estimates are listed separately.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from calibrate.campaign.run import describe_probe
from calibrate.probes.base import MeasuredStage, Simulation
from calibrate.record.adapting import adapts
from calibrate.record.measurement import Measurement, RecordedCardKind, RecordedProbe
from calibrate.table.knobs import eager
from calibrate.verdict import Verdict
from calibrate.workload import Workload

WHOLE: Final = "total"
"""The stage name for values of a whole run."""

WITHIN: Final = 0.05
UNDER: Final = 0.02
"""The allowed error of a simulated smallest cap, and the allowed error below the card's."""

SHARE: Final = 0.95
"""The share of probes that must be within these errors."""


class Quantity(StrEnum):
    """The compared quantities."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    SMALLEST_CAP = "smallest_cap"


class ComparedNumber(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a probe, in bytes.

    For a smallest cap the card only says that it lies from `measured_from` to `measured`. `probe` is an index into the
    record.
    """

    probe: int
    stage: str
    quantity: Quantity
    simulated: int
    measured: int
    measured_from: int

    @property
    def lowest_error(self) -> float:
        """The error relative to the largest possible need of the card."""
        return (self.simulated - self.measured) / self.measured

    @property
    def highest_error(self) -> float:
        """The error relative to the smallest possible need of the card; infinite if that may be 0."""
        if not self.measured_from:
            return math.inf
        return (self.simulated - self.measured_from) / self.measured_from

    @property
    def error(self) -> float:
        """The smallest possible error: 0 if the card leaves both signs open."""
        if self.lowest_error <= 0 <= self.highest_error:
            return 0.0
        return min(self.lowest_error, self.highest_error, key=abs)

    @property
    def distance(self) -> int:
        """Bytes between the simulated number and the nearest that the card can have needed."""
        return max(self.simulated - self.measured, self.measured_from - self.simulated, 0)

    @property
    def near(self) -> bool:
        """Whether the error is allowed for every possible value of the card."""
        return self.lowest_error >= -UNDER and self.highest_error <= WITHIN

    @property
    def far(self) -> bool:
        """Whether the error is too large for every possible value of the card."""
        return self.highest_error < -UNDER or self.lowest_error > WITHIN


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """All pairs of a stage and a quantity: the mean of the absolute errors, and the largest one.

    `under` counts those that the simulation put too low, `worst_under` is the lowest of them, 0 if there is none.
    `farthest_bytes` is the largest distance in bytes, 0 if every number lies within what the simulation allows.
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
    """The number of equal verdicts of both cards, and of those where only one fitted."""

    alike: int
    only_simulated_fits: int
    only_measured_fits: int


class CertificateAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """The number of a record's certificates that the simulation confirms: the same song fits, the next one fails."""

    equal: int
    different: int


class Nearness(msgspec.Struct, frozen=True, kw_only=True):
    """Smallest caps: how many are near enough and how many are not.

    For the `open` ones the card's probes do not decide.
    """

    near: int
    far: int
    open: int

    @property
    def reached(self) -> bool:
        """Whether enough of the decidable ones are near; False if none is decidable."""
        return self.near > 0 and self.near >= SHARE * (self.near + self.far)


class Reality(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `python -m calibrate reality`. `pairs` are all comparisons, the worst under-estimates first.

    `unanswered` are the probes that a simulated card cannot run.
    """

    record: str
    card: str
    errors: tuple[Errors, ...]
    verdicts: Verdicts
    boundaries: CertificateAgreement
    caps: Nearness
    unanswered: int
    pairs: tuple[ComparedNumber, ...]


def reality_of(record: Measurement, simulation: Simulation) -> Reality:
    """Compare the answers of a real card with those of a simulation to the same questions.

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
        # The bytes of an unfinished run depend on where it stopped.
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
    """Return which probe a comparison is about, as text for the screen."""
    probe = record.probes[pair.probe]
    return describe_probe(probe.knobs, probe.workload, probe.cap_bytes)


def measured_cap(probes: Sequence[RecordedProbe]) -> tuple[int, int]:
    """Return the bounds of a card's smallest cap, from all its runs of one question; (0, 0) if none fitted.

    The upper bound is what a fitting run had reserved: under a cap of that size the allocator does the same
    (`calibrate.probes.simulated.replay.smallest_cap` has the proof), and stages that adapt to free memory take less.
    The lower bound is the tensors that do not depend on the cap, and every cap that was not enough. If noise makes the
    bounds cross, the run that fitted decides.
    """
    fitted = [probe for probe in probes if probe.counts and probe.stages]
    enough = min((max(stage.peak_reserved_bytes for stage in probe.stages) for probe in fitted), default=0)
    needed = [
        stage.peak_allocated_bytes
        for probe in fitted
        for stage in probe.stages
        if not adapts(stage.name, probe.knobs, probe.workload)
    ]
    refused = [probe.allocator_bytes + 1 for probe in probes if probe.verdict is Verdict.OOM]
    return min(enough, max(needed + refused, default=0)), enough


def _stage_pairs(
    number: int, measured: Sequence[MeasuredStage], simulated: Sequence[MeasuredStage]
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


def _allocated(simulated: MeasuredStage, measured: MeasuredStage) -> int:
    """The simulated peak that is nearest to a card's: libraries' workspaces come from PyTorch's allocator as well.

    A simulation does not know which of them exist at the time of the tensors' peak, so it includes all or none.
    """
    least = simulated.peak_allocated_bytes
    return min(max(measured.peak_allocated_bytes, least), least + simulated.allowance_bytes)


def _cap_pairs(probes: Sequence[RecordedProbe], simulation: Simulation) -> Iterator[ComparedNumber]:
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
    """In the order of first appearance of stages and quantities."""
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
