"""The tier of a card, the tier whose limits it can keep, and its knobs as this kind of card supports them. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from acestep.hardware.card import Card, CardKind
from acestep.knobs import KNOBS, Knobs, Offload, Variant
from acestep.limits.capabilities import songs_in_float32
from acestep.limits.fallbacks import backends_on, moves_weights
from acestep.tiers import Tier, TierTable


def tiers_of(table: TierTable, variant: Variant, notes: list[str]) -> Sequence[Tier]:
    """Return the tiers of a variant, or turbo's with a sentence where it has none."""
    if variant in table.variants:
        return table.variants[variant].tiers
    notes.append(
        f"Nothing is certified for {variant} yet; the limits are those of {Variant.TURBO} and may be too high for it."
    )
    return table.variants[Variant.TURBO].tiers


def tier_and_limits(card: Card, variant: Variant, tiers: Sequence[Tier], notes: list[str]) -> tuple[Tier, Tier]:
    """Return the tier that the card belongs to, and the tier whose limits it can keep."""
    if card.kind is CardKind.CPU:
        return tiers[0], tiers[0]
    tier = tiers[_place(tiers, card.nameplate_gib)]
    size = _holds_as(card, variant)
    place = _place(tiers, size)
    named, below = tiers[place], tiers[max(place - 1, 0)]
    has = f"this card has {size:.3g} GiB"
    if songs_in_float32(card, variant):
        notes.append(
            "This card has no bfloat16, so the model runs in float32, slower and twice as large: the card's "
            f"{card.nameplate_gib:.3g} GiB hold what {size:.3g} GiB do elsewhere."
        )
        has = f"this one counts as {size:.3g} GiB"
    if size >= named.certified_gib:
        return tier, named
    streamed = "the weights are streamed where the card can, and long songs may not fit all the same"
    how = f"the limits of {below.id} apply" if place else streamed
    notes.append(f"{named.id} is certified from {named.certified_gib} GiB on and {has}: {how}.")
    return tier, below


def told_room(own: Tier, able: Tier, wishes: Mapping[str, object], granted: Knobs, notes: list[str]) -> None:
    """Say which of a tier's `own` knobs were given up for a wished language model, which fits beside those of `able`.

    A knob that was wished, or that is granted otherwise, needs no sentence.
    """
    changed = [
        f"{KNOBS[name].noun} {KNOBS[name].as_text(value)}"
        for name in ("offload", "quantization", "lm_quantization", "backend")
        if (value := getattr(granted, name)) == getattr(able, name) and value not in (getattr(own, name), wishes[name])
    ]
    if changed and granted.lm == wishes["lm"]:
        notes.append(f"{granted.lm} fits this card with {' and '.join(changed)}, so that is used.")


def adapted(tier: Tier, card: Card, variant: Variant, notes: list[str]) -> Tier:
    """Return a tier's knobs as this kind of card supports them, before any wishes."""
    allowed = backends_on(card, tier.backends_allowed)
    apple = card.kind is CardKind.MPS
    offload = tier.offload
    if _holds_as(card, variant) < tier.certified_gib:
        # Only a card below the first tier's certified size gets here: others were given a lower tier's limits.
        offload = max(offload, Offload.STREAM, key=KNOBS["offload"].rank)
    if apple and (offload is not Offload.NONE or tier.quantization is not None):
        notes.append(
            f"The limits of {tier.id} were found with offload {offload} and quantization "
            f"{tier.quantization or 'none'}, which Apple GPUs have not: long songs may not fit."
        )
    held = moves_weights(card)
    return msgspec.structs.replace(
        tier,
        backend=allowed[0] if apple or tier.backend not in allowed else tier.backend,
        backends_allowed=allowed,
        compile=tier.compile and card.kind is CardKind.CUDA,
        offload=offload if held else Offload.NONE,
        quantization=tier.quantization if held else None,
        lm_quantization=tier.lm_quantization if held else None,
    )


def _place(tiers: Sequence[Tier], size_gib: float) -> int:
    return next(index for index, tier in enumerate(tiers) if size_gib in tier.vram_gib)


def _holds_as(card: Card, variant: Variant) -> float:
    """Return the size in GiB of a bfloat16 card that holds as much as this one."""
    return card.nameplate_gib / 2 if songs_in_float32(card, variant) else card.nameplate_gib
