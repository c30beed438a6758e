"""Plans and tables as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from acestep.cli.show_times import plan_time_rows, tier_time
from acestep.evidence import Evidence
from acestep.hardware.card import card_line
from acestep.knobs import KNOBS
from acestep.limits.plan import Plan
from acestep.limits.plan_document import PlanDocument
from acestep.song_times import TierTimes
from acestep.tiers import BATCHES, LmStates, Tier, VariantTable
from acestep.units import gib, minutes

UNKNOWN_DTYPE = "bfloat16 where PyTorch finds instructions for it, else float32"
"""What the processor computes in, where only PyTorch can tell."""


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, every column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def plan_text(plan: PlanDocument) -> str:
    """Return a plan as text: the card's limits, the settings, how long songs take, and every warning."""
    lm = "none" if plan.lm is None else f"{plan.lm} by {plan.backend}, {_loaded(plan)}"
    lm += f", on {plan.lm_card.name}" if plan.lm_card is not None else ""
    offered = ", ".join(plan.lm_models) or "none"
    certified = f", limits of {plan.limits_of}" if plan.limits_of != plan.tier else ""
    page = aligned(
        (
            ("card", card_line(plan.card)),
            ("tier", f"{plan.tier} ({plan.label}){certified}, certified at {plan.certified_gib} GiB"),
            ("model", plan.variant),
            ("songs", f"{_limits(plan, lm=False)} without a language model"),
            ("", f"{_limits(plan, lm=True)} with one"),
            *([("", more)] if (more := _more(plan)) else []),
            ("language model", f"{lm} (offered: {offered})"),
            ("backends", ", ".join(plan.backends_allowed)),
            *(
                (knob.noun, knob.as_text(getattr(plan, name)))
                for name, knob in KNOBS.items()
                if name not in ("variant", "lm", "backend")
            ),
            *([("adapters", f"{gib(plan.adapter_bytes)} beside the weights")] if plan.adapter_bytes else []),
            ("computes in", plan.dtype or UNKNOWN_DTYPE),
            ("evidence", _kinds(plan.evidence)),
            *plan_time_rows(plan, plan.times),
        )
    )
    return "\n".join((*page, *(f"warning: {sentence}" for sentence in plan.warnings)))


def _loaded(plan: Plan) -> str:
    return "loaded by default" if plan.init_lm else "only when asked for"


def _limits(plan: Plan, *, lm: bool) -> str:
    reach = {batch: plan.frontier.longest(batch, lm=lm) for batch in BATCHES}
    steps = [
        f"{batch} {'song' if batch == 1 else 'songs'} of up to {minutes(reach[batch])}"
        for batch, larger in zip(BATCHES, (*BATCHES[1:], None), strict=True)
        if reach[batch] and (larger is None or reach[larger] != reach[batch])
    ]
    return ", ".join(steps) or "not certified"


def _more(plan: Plan) -> str:
    """Return how long songs of larger batches may be, which is predicted and not certified; "" if that is no more."""
    certified, reach = plan.frontier.longest(BATCHES[-1], lm=False), plan.reach.without_lm
    return f"more songs of up to {minutes(reach)} with fewer at a time (predicted)" if reach > certified else ""


def songs_text(document: Mapping[str, Any]) -> str:
    """Return the songs of a `generate` document, one in each line."""
    return "\n".join(
        f"{song['path']}  {minutes(song['duration_s'])}, seed {song['seed']}" for song in document["songs"]
    )


def description_text(document: Mapping[str, Any]) -> str:
    """Return a song in words, for `understand`, `sample` and `format`: the known metadata, then the lyrics."""
    known = {
        "Caption": document["caption"],
        "Tempo": f"{document['bpm']} bpm" if document["bpm"] else "",
        "Key": document["keyscale"],
        "Time signature": document["timesignature"],
        "Length": minutes(document["duration_s"]) if document["duration_s"] else "",
        "Language": document["language"],
    }
    lines = [f"{name}: {value}" for name, value in known.items() if value]
    return "\n".join([*lines, "", document["lyrics"]]).rstrip()


_HEADINGS = (
    "VRAM",
    "Tier",
    "LM models",
    "Recommended LM",
    "Backend",
    "Longest song (with LM / without)",
    "Largest batch (with LM / without)",
    "Offload",
    "Quantization",
    "4 min of music, estimated (with LM / without)",
    "Evidence",
)


def _cells(tier: Tier, times: Mapping[str, TierTimes]) -> tuple[str, ...]:
    def both(limits: LmStates, kind: str) -> str:
        return " / ".join(_amount(limits.of(lm=lm), kind) for lm in (True, False))

    return (
        tier.label,
        tier.id,
        ", ".join(tier.lm_models) or "none",
        tier.recommended_lm or "—",
        tier.backend,
        both(tier.max_duration_s, "duration"),
        both(tier.max_batch, "batch"),
        tier.offload,
        tier.quantization or "none",
        tier_time(tier, times),
        _kinds(tier.evidence),
    )


def _kinds(evidence: Mapping[str, Evidence]) -> str:
    """Return how the numbers were found; policy decisions are not numbers."""
    return ", ".join(sorted({found.kind for found in evidence.values()} - {"policy"})) or "none"


def _amount(value: int, kind: str) -> str:
    if value == 0:
        return "—"
    return minutes(value) if kind == "duration" else str(value)


def tiers_text(table: VariantTable) -> str:
    """Return the tiers as a table for a terminal."""
    return "\n".join(aligned([_HEADINGS, *(_cells(tier, table.times) for tier in table.tiers)]))


def tiers_markdown(table: VariantTable) -> str:
    """Return the tiers as a Markdown table."""
    cells = (_cells(tier, table.times) for tier in table.tiers)
    rows = (_HEADINGS, tuple("---" for _ in _HEADINGS), *cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
