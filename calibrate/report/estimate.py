"""One simulated probe stage by stage: its need, the rest of the cap, and what was alive at the peak."""

import msgspec
from msgspec import UNSET, UnsetType

from acestep.cli.console import notify
from acestep.hardware.card import simulated_card
from acestep.knobs import Backend, Knobs, Variant
from acestep.limits.plan import Overrides, resolve
from acestep.request import DecodePath
from acestep.tiers import TierTable
from acestep.units import gib, mib
from calibrate.probes.base import MeasuredStage, Simulation
from calibrate.screen import print_table
from calibrate.table.knobs import describe_knobs, eager
from calibrate.timing.song import SongTime
from calibrate.verdict import Verdict
from calibrate.workload import Workload


class EstimatedStage(MeasuredStage, frozen=True, kw_only=True):
    """One stage; `min_cap_bytes` is the smallest cap from which on every cap carries it, 0 where it was not found.

    `live_at_peak` splits the allocated peak by component.
    """

    min_cap_bytes: int
    live_at_peak: dict[str, int]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `python -m calibrate estimate`; `time` is there where a card was named and the songs fit."""

    verdict: Verdict
    knobs: Knobs
    workload: Workload
    cap_bytes: int
    min_cap_bytes: int
    stages: tuple[EstimatedStage, ...]
    peak_reserved_bytes: int
    decode_path: DecodePath
    songs_per_pass: int
    warnings: tuple[str, ...]
    time: SongTime | UnsetType = UNSET


def knobs_for(table: TierTable, overrides: Overrides, vram_gib: float | None) -> tuple[Knobs, tuple[str, ...]]:
    """Return the knobs to probe, and the plan's remarks: the tier's knobs changed by the wishes, none of them refused.

    The tier is that of a card of a size, or the table's last if `vram_gib` is None.
    """
    size = table.variants[Variant.TURBO].tiers[-1].certified_gib if vram_gib is None else vram_gib
    plan = resolve(simulated_card(size), table, Overrides(variant=overrides.variant))
    wishes = {name: wish for name, wish in msgspec.structs.asdict(overrides).items() if wish is not msgspec.UNSET}
    knobs = msgspec.structs.replace(plan.knobs, **wishes)
    if knobs.lm_quantization is not None and "backend" not in wishes:
        # As in a plan: the tier's own backend may support unquantized language models only.
        knobs = msgspec.structs.replace(knobs, backend=Backend.PT)
    return eager(knobs), plan.warnings


def estimate(prober: Simulation, knobs: Knobs, workload: Workload, cap_bytes: int | None) -> Estimate:
    """Probe under a cap, or under the smallest that fits where `cap_bytes` is None."""
    caps = prober.smallest_caps(knobs, workload)
    result = prober.probe(knobs, workload, caps["total"] if cap_bytes is None else cap_bytes)
    return Estimate(
        verdict=result.verdict,
        knobs=knobs,
        workload=workload,
        cap_bytes=result.cap_bytes,
        min_cap_bytes=caps["total"],
        stages=tuple(
            EstimatedStage(
                **msgspec.structs.asdict(stage),
                min_cap_bytes=caps.get(stage.name, 0),
                live_at_peak=result.live_at_peak.get(stage.name, {}),
            )
            for stage in result.stages
        ),
        peak_reserved_bytes=result.peak_reserved_bytes,
        decode_path=result.decode_path,
        songs_per_pass=result.songs_per_pass,
        warnings=result.warnings,
    )


def _largest(live: dict[str, int]) -> str:
    """Return the three largest parts by name and the rest as one sum."""
    parts = sorted(live.items(), key=lambda part: (-part[1], part[0]))
    named = [f"{name} {mib(size)}" for name, size in parts[:3]]
    rest = sum(size for _, size in parts[3:])
    return ", ".join([*named, f"other {mib(rest)}"] if rest else named)


def _where_it_ended(stages: tuple[EstimatedStage, ...]) -> str:
    """A stage that ran out of memory shows more allocated than reserved bytes; this sentence explains it."""
    if not stages:
        return "Memory ran out while the weights came in, before the first stage."
    last = stages[-1]
    if last.peak_allocated_bytes > last.peak_reserved_bytes:
        return f"Memory ran out in {last.name}: it would hold what is allocated, and got what is reserved."
    return f"Memory ran out in {last.name}: what was free was in pieces too small for what it asked for."


def print_estimate(found: Estimate) -> None:
    """Print the estimate as a table on stdout; the last column has the parts of each stage's peak."""
    songs = f"{found.workload.batch} x {found.workload.duration_s:g} s"
    print_table(
        f"{found.verdict}: {songs} under {gib(found.cap_bytes)} ({describe_knobs(found.knobs)});"
        f" the smallest cap that fits is {gib(found.min_cap_bytes)}",
        ("stage", "songs a pass", "allocated", "reserved", "smallest cap", "weights", "allowance", "alive at the peak"),
        [
            (
                stage.name,
                str(stage.songs_per_pass),
                mib(stage.peak_allocated_bytes),
                mib(stage.peak_reserved_bytes),
                mib(stage.min_cap_bytes),
                mib(stage.resident_bytes),
                mib(stage.allowance_bytes),
                _largest(stage.live_at_peak),
            )
            for stage in found.stages
        ],
        folding=("alive at the peak",),
    )
    if found.verdict is Verdict.OOM:
        notify(_where_it_ended(found.stages))
    if found.time is not UNSET:
        _print_time(found.time, songs)
    for warning in found.warnings:
        notify(warning)


def _print_time(time: SongTime, songs: str) -> None:
    total = time.total
    print_table(
        f"On the {time.card}, {songs} take about {_s(total.likely)}, with {time.steps} steps"
        f" ({_s(total.least)} to {_s(total.most)}; {time.evidence})",
        ("stage", "about", "from", "to"),
        [(name, _s(stage.likely), _s(stage.least), _s(stage.most)) for name, stage in time.stages.items()],
    )


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
