"""The data of the plots, taken from records: nothing here is computed twice or rounded. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from acestep.budgets import System
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.limits.guard import Demand, predict
from acestep.request import LATENT_HOP, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, SAMPLE_RATE
from acestep.tiers import BATCHES, Tier
from acestep.units import ceil_div
from calibrate.probes.base import MeasuredStage
from calibrate.record.measurement import Certificate, Measurement, RecordedCardKind, RecordedProbe
from calibrate.table.policy import Policy, budget_bytes

PlotPoint = tuple[int, int]
"""Seconds of a song, and bytes."""


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the drawn values."""


class Curve(_Data, frozen=True):
    """The smallest cap of a batch by the length of its songs."""

    batch: int
    points: tuple[PlotPoint, ...]


class Line(_Data, frozen=True):
    """The curves of several batches that lie on each other, drawn as that of the largest one."""

    batches: tuple[int, ...]
    points: tuple[PlotPoint, ...]


class BudgetLine(_Data, frozen=True):
    """The budget of a tier."""

    label: str
    n_bytes: int


class Panel(_Data, frozen=True):
    """One placement of the weights: the need of each batch, the probes at a budget, and the budgets."""

    offload: Offload
    quantization: Quantization | None
    curves: tuple[Curve, ...]
    fits: tuple[tuple[int, PlotPoint], ...]
    fails: tuple[tuple[int, PlotPoint], ...]
    budgets: tuple[BudgetLine, ...]


class StageBar(_Data, frozen=True):
    """The memory at the peak of a stage, in a tier's own largest run."""

    stage: MeasuredStage
    tier: str
    budget: int

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of what was on the card, from below."""
        stage = self.stage
        return {
            "weights": stage.resident_bytes,
            "activations": stage.activation_bytes,
            "allowance": stage.allowance_bytes,
        }


class StagePair(_Data, frozen=True):
    """One stage of a probe made on a real card and on the simulated one."""

    stage: str
    measured: int
    simulated: int


def panels(
    variant: Variant, tiers: Sequence[Tier], policy: Policy, records: Mapping[str, Measurement]
) -> tuple[Panel, ...]:
    """Return a panel for each placement of the weights in the tiers, in the order of the tiers."""
    budgets = tuple(BudgetLine(label=tier.label, n_bytes=budget_bytes(tier.certified_gib, policy)) for tier in tiers)
    found: dict[tuple[Offload, Quantization | None], Panel] = {}
    for tier in tiers:
        way = (tier.offload, tier.quantization)
        record = _record_of(tier, records)
        if record is None or way in found:
            continue
        knobs = Knobs(variant=variant, offload=tier.offload, quantization=tier.quantization)
        proven = _telling([c for c in record.certificates if c.knobs == knobs])
        found[way] = Panel(
            offload=tier.offload,
            quantization=tier.quantization,
            curves=_curves(knobs, record, policy),
            fits=tuple((c.batch, _point(record.probes[c.fits])) for c in proven if c.fits is not None),
            fails=tuple((c.batch, _point(record.probes[c.fails])) for c in proven if c.fails is not None),
            budgets=budgets,
        )
    return tuple(found.values())


def lines(curves: Sequence[Curve], apart_bytes: float) -> tuple[Line, ...]:
    """Return curves as lines, those that are nowhere more than `apart_bytes` from the smallest batch's as one."""
    found: list[list[Curve]] = []
    for curve in sorted(curves, key=lambda curve: curve.batch):
        if found and _farthest(found[-1][0], curve) <= apart_bytes:
            found[-1].append(curve)
        else:
            found.append([curve])
    return tuple(Line(batches=tuple(c.batch for c in group), points=group[-1].points) for group in found)


def _farthest(one: Curve, other: Curve) -> int:
    return max(abs(here - there) for (_, here), (_, there) in zip(one.points, other.points, strict=True))


def _curves(knobs: Knobs, record: Measurement, policy: Policy) -> tuple[Curve, ...]:
    """Return the record's own memory model, evaluated for the longest prompt; nothing if it has none."""
    model = {number.name: number.value for number in record.memory_model if number.variant is knobs.variant}
    lengths = policy.durations_s.values
    needs = {batch: [predict(model, knobs, _demand(batch, seconds)) for seconds in lengths] for batch in BATCHES}
    return tuple(
        Curve(batch=batch, points=tuple((s, need["total"]) for s, need in zip(lengths, per_length, strict=True)))
        for batch, per_length in needs.items()
        if all(per_length)
    )


def _telling(certificates: Sequence[Certificate]) -> list[Certificate]:
    """Return the certificates that found a boundary, and under each cap the largest batch whose longest song fitted."""
    unbounded = {c.cap_bytes: c for c in sorted(certificates, key=lambda c: c.batch) if c.fails is None}
    return [c for c in certificates if c.fits is not None and (c.fails is not None or c is unbounded[c.cap_bytes])]


def _demand(batch: int, seconds: int) -> Demand:
    frames = ceil_div(seconds * SAMPLE_RATE, LATENT_HOP)
    return Demand(songs=batch, frames=frames, lyric_tokens=MAX_LYRIC_TOKENS, text_tokens=MAX_TEXT_TOKENS)


def _point(probe: RecordedProbe) -> PlotPoint:
    return int(probe.workload.duration_s), probe.cap_bytes


def stage_bars(
    variant: Variant, tiers: Sequence[Tier], policy: Policy, records: Mapping[str, Measurement]
) -> tuple[StageBar, ...]:
    """Return every stage of every tier's largest batch of its longest song, with a language model if probed."""
    bars = []
    for tier in tiers:
        record, cap_bytes = _record_of(tier, records), budget_bytes(tier.certified_gib, policy)
        probe = None if record is None else _headline(record, variant, tier, cap_bytes)
        bars += [
            StageBar(stage=stage, tier=tier.label, budget=cap_bytes)
            for stage in (() if probe is None else probe.stages)
        ]
    return tuple(bars)


def _headline(record: Measurement, variant: Variant, tier: Tier, cap_bytes: int) -> RecordedProbe | None:
    def proves(certificate: Certificate, *, lm: bool) -> bool:
        knobs = certificate.knobs
        return (
            (knobs.variant, knobs.offload, knobs.quantization) == (variant, tier.offload, tier.quantization)
            and (certificate.cap_bytes, certificate.batch) == (cap_bytes, tier.max_batch.of(lm=lm))
            and knobs.lm == (tier.recommended_lm if lm else None)
        )

    for lm in (True, False):
        for certificate in record.certificates:
            if certificate.fits is not None and proves(certificate, lm=lm):
                return record.probes[certificate.fits]
    return None


def pairs(variant: Variant, records: Sequence[Measurement]) -> tuple[StagePair, ...]:
    """Return the allocated peaks of every probe that both a real and the simulated card completed."""
    simulated = {
        probe.question: probe
        for record in records
        if record.card.kind is RecordedCardKind.SIMULATED and record.card.system is System.LINUX
        for probe in record.probes
        if probe.counts
    }
    measured = [p for record in records if record.card.kind is RecordedCardKind.CUDA for p in record.probes]
    return tuple(
        StagePair(stage=real.name, measured=real.peak_allocated_bytes, simulated=imagined.peak_allocated_bytes)
        for probe in measured
        if probe.counts and probe.knobs.variant is variant and probe.question in simulated
        for real in probe.stages
        for imagined in simulated[probe.question].stages
        if real.name == imagined.name
    )


def _record_of(tier: Tier, records: Mapping[str, Measurement]) -> Measurement | None:
    """Return the record of a tier's frontier; None if the table was not merged from these records."""
    evidence = tier.evidence.get("frontier")
    return None if evidence is None else records.get(evidence.record)
