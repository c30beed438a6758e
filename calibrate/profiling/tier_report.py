"""The results of `tier-test` as text: a row per probe, the boundaries, and the failures."""

from collections.abc import Sequence

from acestep.cli.console import notify
from acestep.stage import Stage
from acestep.units import MIB
from calibrate.profiling.document import SweptBoundary, TierTest, TierTestRow
from calibrate.profiling.tier_test import Options, Trial
from calibrate.screen import print_table

NOT_ASKED = "not asked for"


def print_tier_test(found: TierTest, tried: Sequence[Trial], options: Options) -> None:
    """The whole report on stdout, failures on stderr."""
    without = {trial.vram_gib for trial in tried if not trial.thinking} if options.with_lm else set()
    seen = {stage.name for row in found.results for stage in row.stages}
    stages = [stage for stage in Stage if stage in seen]
    print_table(
        f"Tiers at their own limits, {found.device} card (MiB: allocated in each stage, reserved in all)",
        ("VRAM", "tier", "config", "knobs", "LM", "songs", "verdict", *stages, "reserved"),
        [_cells(row, stages, "skipped: no LM" if row.vram_gib in without else "none") for row in found.results],
        folding=("config", "knobs", "LM"),
    )
    if found.boundaries is not None:
        print_table(
            "Smallest VRAM, at each tier's limits",
            ("without", "fits from", "tier", "fails at"),
            [
                ("INT8", *_boundary_cells(found.boundaries.without_int8)),
                ("offload", *_boundary_cells(found.boundaries.without_offload)),
            ],
        )
        print_table(
            "Smallest VRAM for a language model, at each tier's limits",
            ("LM", "fits from", "tier", "fails at"),
            [(model, *_boundary_cells(boundary)) for model, boundary in found.boundaries.lm.items()]
            or [("any", f"{NOT_ASKED}: --tier-with-lm", "", "")],
        )
    if found.batch_boundaries:
        promised = {trial.vram_gib: trial.plan.max_batch for trial in tried}
        print_table(
            "Largest batch at each tier's longest song, beside what the table in force promises",
            ("VRAM", "tier", "without LM", "with LM"),
            [
                (
                    f"{entry.vram_gib:g} GiB",
                    entry.tier,
                    _batch_cell(entry.without_lm, promised[entry.vram_gib].without_lm),
                    _batch_cell(entry.with_lm, promised[entry.vram_gib].with_lm),
                )
                for entry in found.batch_boundaries
            ],
        )
    for sentence in dict.fromkeys(warning for row in found.results for warning in row.warnings):
        notify(f"warning: {sentence}")
    for sentence in found.failed:
        notify(f"FAILED {sentence}")


def _cells(row: TierTestRow, stages: Sequence[str], no_lm: str) -> tuple[str, ...]:
    peaks = {stage.name: _in_mib(stage.peak_allocated_bytes) for stage in row.stages}
    knobs = (row.offload, row.quantization or "bf16", "compiled" if row.compiled else "eager")
    return (
        f"{row.vram_gib:g} GiB",
        row.tier,
        ", ".join(row.configs),
        ", ".join(knobs),
        f"{row.lm} with {row.backend}" if row.lm else no_lm,
        f"{row.batch}x{row.duration_s}s",
        row.verdict,
        *(peaks.get(stage, "-") for stage in stages),
        _in_mib(row.peak_reserved_bytes) if row.stages else "-",
    )


def _batch_cell(probed: int | None, promised: int) -> str:
    """Return the probed batch, compared with the promised one."""
    if probed is None:
        return NOT_ASKED
    if probed == promised:
        return f"{probed}, as promised"
    return f"{probed}, {'more' if probed > promised else 'LESS'} than the {promised} promised"


def _in_mib(n_bytes: int) -> str:
    return f"{n_bytes / MIB:,.0f}"


def _boundary_cells(found: SweptBoundary) -> tuple[str, str, str]:
    return (
        f"{found.fits_gib:g} GiB" if found.fits_gib else "none of these sizes",
        found.tier or "-",
        f"{found.fails_gib:g} GiB" if found.fails_gib else "none of these sizes",
    )
