"""Finds the limits of a table that are below those at the base. Pure."""

from collections.abc import Iterator

import msgspec

from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.knobs import KNOBS, Backend, Variant
from acestep.tiers import BATCHES, SizeBoundary, Tier, TierTable, VariantTable, lm_rank
from calibrate.files import as_text
from ci.findings import Finding, FindingValue

STATES = {"without_lm": False, "with_lm": True}

Loss = tuple[str, str, FindingValue, FindingValue]
"""The id of a rule, a field, and its values before and after."""


def compared_tiers(base: TierTable, head: TierTable) -> int:
    """Tiers that both tables have."""
    return sum(
        len({tier.id for tier in entry.tiers} & {tier.id for tier in head.variants[variant].tiers})
        for variant, entry in base.variants.items()
        if variant in head.variants
    )


def table_findings(base: TierTable, head: TierTable) -> Iterator[Finding]:
    """Yield every cell of the base for which the head promises less."""
    for variant, before in base.variants.items():
        if variant not in head.variants:
            yield _finding(variant, "", ("G501", "variants", variant.value, None))
            continue
        after = head.variants[variant]
        tiers = {tier.id: tier for tier in after.tiers}
        for tier in before.tiers:
            losses = _lost(tier, tiers[tier.id]) if tier.id in tiers else iter([("G501", "id", tier.id, None)])
            yield from (_finding(variant, tier.id, loss) for loss in losses)
        yield from _variant_findings(variant, before, after)
        yield from _on_windows(variant, before, after)


def is_field(name: str) -> bool:
    """Return whether the name of a finding's field is one of the table's."""
    first, _, rest = name.partition(".")
    return is_field(rest) if first == System.WINDOWS else first in {*Tier.__struct_fields__, "boundaries", "times"}


def still_lost(entry: VariantTable, tier_id: str, field: str, value: str) -> bool:
    """Return whether a field still has the `value`, as text, to which a finding of it once said that it fell."""
    first, _, rest = field.partition(".")
    if first == System.WINDOWS:
        return still_lost(entry.on(System.WINDOWS), tier_id, rest, value)
    if first == "times":
        return value == "0" and tier_id not in entry.times
    if first == "boundaries":
        boundary = entry.boundaries.named.get(rest)
        return as_text(boundary and boundary.fits_gib) == value
    tier = next((tier for tier in entry.tiers if tier.id == tier_id), None)
    if tier is None:
        return value == as_text(None)
    if field == "lm_needs":
        return set(value.split(", ")) <= set(tier.lm_needs)
    if field == "vram_gib.lower":
        return _bound(tier) == value
    if first == "evidence":
        evidence = tier.evidence_for(rest)
        return as_text(evidence and evidence.kind) == value
    return _cell(tier, field) == value


def _cell(tier: Tier, field: str) -> str:
    """Return the value of a field as text; none if there is no such field."""
    node: object = msgspec.to_builtins(tier)
    while field and isinstance(node, dict):
        # The names of language models have a point in them.
        first, _, rest = (field, "", "") if field in node else field.partition(".")
        node, field = node.get(first), rest
    return ", ".join(map(str, node)) or as_text(None) if isinstance(node, list | tuple) else as_text(node)


def _finding(variant: Variant, tier: str, loss: Loss) -> Finding:
    rule, field, before, after = loss
    place = f"{variant} {tier}".strip()
    gone = (
        "is gone" if after is None and rule == "G501" else f"is {as_text(after)}, at the base it is {as_text(before)}"
    )
    return Finding(
        id=rule,
        variant=variant,
        tier=tier,
        field=field,
        before=before,
        after=after,
        message=f"{place}: {field} {gone}." if rule != "G501" else f"{place} {gone}.",
    )


def _on_windows(variant: Variant, before: VariantTable, after: VariantTable) -> Iterator[Finding]:
    """Yield what is lost on Windows, where the base states its promises: before, no table said what holds there."""
    if not before.windows:
        return
    stated = {tier.id for tier in (*before.windows, *after.windows)}
    tiers = {tier.id: tier for tier in after.on(System.WINDOWS).tiers}
    for tier in before.on(System.WINDOWS).tiers:
        if tier.id in stated and tier.id in tiers:
            for rule, field, value, value_now in _lost(tier, tiers[tier.id]):
                yield _finding(variant, tier.id, (rule, f"{System.WINDOWS}.{field}", value, value_now))


def _lost(before: Tier, after: Tier) -> Iterator[Loss]:
    for state, lm in STATES.items():
        yield from _shorter(before, after, state, lm=lm)
    yield from _lost_models(before, after)
    # If no song was certified, the settings promised nothing.
    promised = before.max_duration_s.of(lm=False) > 0
    for name, knob in KNOBS.items():
        if knob.saves and name in Tier.__struct_fields__ and (bool(before.own_lm_models) if knob.of_lm else promised):
            old, new = getattr(before, name), getattr(after, name)
            if knob.rank(new) > knob.rank(old):
                yield "G506" if name == "offload" else "G507", name, old, new
    yield from _range_moved(before, after)
    yield from _weaker_evidence(before, after)
    yield from _lost_defaults(before, after)


def _shorter(before: Tier, after: Tier, state: str, *, lm: bool) -> Iterator[Loss]:
    longest, longest_now = before.max_duration_s.of(lm=lm), after.max_duration_s.of(lm=lm)
    songs, songs_now = before.max_batch.of(lm=lm), after.max_batch.of(lm=lm)
    # A tier with longer songs may reach them with a smaller batch and still keep all its promises.
    reach = max((size for size in BATCHES if after.frontier.longest(size, lm=lm) >= longest > 0), default=0)
    if songs_now < songs and reach < songs:
        yield "G502", f"max_batch.{state}", songs, songs_now
    if longest_now < longest:
        yield "G503", f"max_duration_s.{state}", longest, longest_now
    for size in BATCHES:
        seconds, seconds_now = before.frontier.longest(size, lm=lm), after.frontier.longest(size, lm=lm)
        if seconds_now < seconds:
            yield "G504", f"frontier.{state}.{size}", seconds, seconds_now


def _lost_models(before: Tier, after: Tier) -> Iterator[Loss]:
    if not set(before.lm_models) <= set(after.lm_models):
        yield "G505", "lm_models", ", ".join(before.lm_models), ", ".join(after.lm_models) or None
    own, own_now = before.own_lm_models, after.own_lm_models
    if moved := [model for model in own if model in after.lm_models and model not in own_now]:
        yield "G505", "lm_needs", None, ", ".join(moved)
    if lm_rank(after.recommended_lm) < lm_rank(before.recommended_lm):
        yield "G505", "recommended_lm", before.recommended_lm, after.recommended_lm
    for model, songs in before.lm_songs_per_pass.items():
        now = after.lm_songs_per_pass.get(model)
        if model in after.lm_models and (now or 0) < songs:
            yield "G510", f"lm_songs_per_pass.{model}", songs, now


def _range_moved(before: Tier, after: Tier) -> Iterator[Loss]:
    if after.certified_gib > before.certified_gib:
        yield "G402", "certified_gib", before.certified_gib, after.certified_gib
    # A range that includes its lower bound begins before one that excludes it.
    first, first_now = ((t.vram_gib.lower, not t.vram_gib.lower_inclusive) for t in (before, after))
    if first_now > first:
        yield "G402", "vram_gib.lower", _bound(before), _bound(after)


def _weaker_evidence(before: Tier, after: Tier) -> Iterator[Loss]:
    for field, evidence in before.evidence.items():
        now = after.evidence_for(field)
        if now is None or _weakness(now.kind) > _weakness(evidence.kind):
            yield "G509", f"evidence.{field}", evidence.kind, None if now is None else now.kind


def _lost_defaults(before: Tier, after: Tier) -> Iterator[Loss]:
    if after.backend not in (before.backend, Backend.VLLM):
        yield "G511", "backend", before.backend.value, after.backend.value
    if not set(before.backends_allowed) <= set(after.backends_allowed):
        yield "G511", "backends_allowed", ", ".join(before.backends_allowed), ", ".join(after.backends_allowed)
    for field in ("init_lm", "compile"):
        if getattr(before, field) and not getattr(after, field):
            yield "G511", field, True, False


def _variant_findings(variant: Variant, before: VariantTable, after: VariantTable) -> Iterator[Finding]:
    named = after.boundaries.named
    for name, boundary in before.boundaries.named.items():
        if name not in named:
            yield _finding(variant, boundary.tier, ("G508", f"boundaries.{name}", boundary.fits_gib, None))
        elif _smallest(named[name]) > _smallest(boundary):
            values = boundary.fits_gib, named[name].fits_gib
            yield _finding(variant, boundary.tier, ("G508", f"boundaries.{name}", *values))
    kept = {tier.id for tier in after.tiers}
    for tier in sorted(before.times.keys() & kept - after.times.keys()):
        yield _finding(variant, tier, ("G511", "times", len(before.times[tier].cards), 0))
    if before.memory_model and not after.memory_model:
        yield _finding(variant, "", ("G511", "memory_model", len(before.memory_model), 0))


def _smallest(boundary: SizeBoundary) -> float:
    """Return the smallest size that fits; none counts as infinite."""
    return boundary.fits_gib or float("inf")


def _weakness(kind: EvidenceKind) -> int:
    return list(EvidenceKind).index(kind)


def _bound(tier: Tier) -> str:
    return f"{'from' if tier.vram_gib.lower_inclusive else 'above'} {tier.vram_gib.lower:g} GiB"
