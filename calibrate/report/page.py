"""One measurement file as a self-contained page: the card's limits, and every probe behind them."""

from collections import Counter
from typing import Any

import msgspec

from acestep.stage import Stage
from acestep.units import gib, mib, minutes
from calibrate.probes.base import UNCONDITIONED, CardConditions, MeasuredStage
from calibrate.record.measurement import (
    Certificate,
    Measurement,
    RecordedProbe,
)
from calibrate.report.template import template
from calibrate.table.knobs import describe_knobs


class _Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a probe as a bar: its parts as shares of the cap, in percent."""

    name: str
    peak: str
    weights: float
    activations: float
    allowance: float


class _Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate as text, with the stages of the probe that fits."""

    knobs: str
    cap: str
    batch: int
    fits: str
    fails: str
    bars: tuple[_Bar, ...]


def record_page(record: Measurement) -> str:
    """Return a measurement as one HTML page: no script, no external request, every string of the record escaped."""
    return template("record.html.j2").render(
        record=record,
        kind=record.evidence,
        size=gib(record.card.total_bytes) if record.card.total_bytes else "no size of its own",
        verdicts=sorted(Counter(probe.verdict.value for probe in record.probes).items()),
        beside=_beside(record.conditions),
        environment=msgspec.structs.asdict(record.environment),
        limits=[_limit(record, certificate) for certificate in record.certificates],
        probes=[_row(number, probe) for number, probe in enumerate(record.probes)],
    )


def _beside(conditions: CardConditions) -> str:
    """Return what else was on a real card, as a phrase; "" for a simulated one."""
    if conditions == UNCONDITIONED:
        return ""
    watched = "watched all along" if conditions.watched else "not watched: NVML could not be read"
    taken = f"others held {mib(conditions.foreign_bytes)}, the driver's context {mib(conditions.context_bytes)}"
    settings = f"; allocator settings {conditions.allocator}" if conditions.allocator else ""
    return f"{taken}; {watched}; as before within {conditions.returned_s:g} s{settings}"


def _limit(record: Measurement, certificate: Certificate) -> _Limit:
    def asked(index: int | None, otherwise: str) -> str:
        return otherwise if index is None else f"{_length(record.probes[index])} (probe {index})"

    fitting = None if certificate.fits is None else record.probes[certificate.fits]
    return _Limit(
        knobs=describe_knobs(certificate.knobs),
        cap=gib(certificate.cap_bytes),
        batch=certificate.batch,
        fits=asked(certificate.fits, "none"),
        fails=asked(certificate.fails, "none: the longest fits"),
        bars=() if fitting is None else tuple(_bar(stage, fitting.cap_bytes) for stage in fitting.stages),
    )


def _bar(stage: MeasuredStage, cap_bytes: int) -> _Bar:
    def share(n_bytes: int) -> float:
        return round(100 * n_bytes / cap_bytes, 2)

    return _Bar(
        name=stage.name,
        peak=mib(stage.peak_allocated_bytes),
        weights=share(stage.resident_bytes),
        activations=share(stage.activation_bytes),
        allowance=share(stage.allowance_bytes),
    )


def _row(number: int, probe: RecordedProbe) -> dict[str, Any]:
    return {
        "number": number,
        "knobs": describe_knobs(probe.knobs),
        "cap": gib(probe.cap_bytes),
        "asked": f"{probe.workload.batch} x {_length(probe)}",
        "verdict": probe.verdict.value,
        "decode": probe.decode_path.value if any(stage.name == Stage.DECODE for stage in probe.stages) else "—",
        "stages": [(stage.name, mib(stage.peak_allocated_bytes), _seconds(stage)) for stage in probe.stages],
    }


def _length(probe: RecordedProbe) -> str:
    return minutes(probe.workload.duration_s)


def _seconds(stage: MeasuredStage) -> str:
    return f"{stage.seconds:g} s" if stage.seconds else ""
