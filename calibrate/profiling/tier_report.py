"""What `tier-test` found, for a person: a row per probe, the boundaries, and what failed."""

from collections.abc import Sequence

from acestep.console import notify
from acestep.units import MIB
from calibrate.profiling.document import Row, SweptBoundary, TierTest
from calibrate.profiling.tier_test import Trial
from calibrate.screen import print_table

NOT_CERTIFIED = "not yet certified"


def print_tier_test(found: TierTest, tried: Sequence[Trial], *, with_lm: bool) -> None:
    """The whole report on stdout, failures on stderr."""
    lm_cells = {trial.vram_gib: lm_cell(trial, with_lm=with_lm) for trial in tried}
    stages = list(dict.fromkeys(stage.name for row in found.results for stage in row.stages))
    print_table(
        f"Tiers at their own limits, {found.device} card (MiB: allocated in each stage, reserved in all)",
        ("VRAM", "tier", "config", "knobs", "LM", "songs", "verdict", *stages, "reserved"),
        [_cells(row, stages, lm_cells[row.vram_gib]) for row in found.results],
        folding=("config", "knobs", "LM"),
    )
    if found.boundaries is not None:
        print_table(
            "Smallest VRAM, at each tier's limits",
            ("without", "fits from", "tier", "fails at"),
            [
                ("INT8", *_boundary_cells(found.boundaries.without_int8)),
                ("offload", *_boundary_cells(found.boundaries.without_offload)),
                ("(with a language model)", NOT_CERTIFIED, "", ""),
            ],
        )
    if found.batch_boundaries:
        print_table(
            "Largest batch at each tier's longest song",
            ("VRAM", "tier", "without LM", "with LM"),
            [
                (
                    f"{entry.vram_gib:g} GiB",
                    entry.tier,
                    NOT_CERTIFIED if entry.without_lm is None else str(entry.without_lm),
                    NOT_CERTIFIED if entry.with_lm is None else str(entry.with_lm),
                )
                for entry in found.batch_boundaries
            ],
        )
    for sentence in dict.fromkeys(warning for row in found.results for warning in row.warnings):
        notify(f"warning: {sentence}")
    for sentence in found.failed:
        notify(f"FAILED {sentence}")


def lm_cell(trial: Trial, *, with_lm: bool) -> str:
    """What the LM column says of a tier: never a guess."""
    return "skipped: no LM" if with_lm and not trial.plan.lm_models else NOT_CERTIFIED


def _cells(row: Row, stages: Sequence[str], lm: str) -> tuple[str, ...]:
    peaks = {stage.name: _in_mib(stage.peak_allocated_bytes) for stage in row.stages}
    knobs = (row.offload, row.quantization or "bf16", "compiled" if row.compiled else "eager")
    return (
        f"{row.vram_gib:g} GiB",
        row.tier,
        ", ".join(row.configs),
        ", ".join(knobs),
        lm,
        f"{row.batch}x{row.duration_s}s",
        row.verdict,
        *(peaks.get(stage, "-") for stage in stages),
        _in_mib(row.peak_reserved_bytes) if row.stages else "-",
    )


def _in_mib(n_bytes: int) -> str:
    return f"{n_bytes / MIB:,.0f}"


def _boundary_cells(found: SweptBoundary) -> tuple[str, str, str]:
    return (
        f"{found.fits_gib:g} GiB" if found.fits_gib else "none of these sizes",
        found.tier or "-",
        f"{found.fails_gib:g} GiB" if found.fails_gib else "none of these sizes",
    )
