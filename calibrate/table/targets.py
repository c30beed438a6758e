"""The published table as a target: where the generated one promises less. Pure."""

import datetime
from collections.abc import Sequence
from functools import cache

import msgspec

from acestep.knobs import KNOBS, Backend, Offload, Quantization, Variant
from acestep.strict_json import read_json
from acestep.tiers import LmStates, Shortfall, Tier, TierTable, data_file, lm_rank
from calibrate.files import as_text
from calibrate.table.waivers import Waiver

BOUND = Variant.TURBO
"""The only variant that the published table is about."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the published table."""

    id: str
    lm_models: tuple[str, ...]
    recommended_lm: str | None
    backend: Backend
    max_duration_s: LmStates
    max_batch: LmStates
    offload: Offload
    quantization: Quantization | None


@cache
def published() -> tuple[Target, ...]:
    """The published table (`tiers/published_tiers.json`)."""
    return msgspec.convert(read_json(data_file("published_tiers.json"))["tiers"], tuple[Target, ...])


def shortfalls(tiers: Sequence[Tier], targets: Sequence[Target]) -> tuple[Shortfall, ...]:
    """Every cell below its target, in the order of the targets."""
    by_id = {tier.id: tier for tier in tiers}
    return tuple(short for target in targets for short in _short_of(target, by_id.get(target.id)))


def unwaived(table: TierTable, waivers: Sequence[Waiver], today: datetime.date) -> tuple[Shortfall, ...]:
    """Return the shortfalls of a table that no waiver in force covers."""
    standing = [waiver for waiver in waivers if not waiver.expired(today)]
    return tuple(
        short
        for short in table.shortfalls
        if not any(waiver.covers(BOUND, short.tier, short.field, short.generated) for waiver in standing)
    )


def _short_of(target: Target, tier: Tier | None) -> list[Shortfall]:
    if tier is None:
        return [Shortfall(tier=target.id, field="id", published=target.id, generated="none")]
    short: list[Shortfall] = []

    def require(holds: bool, field: str, wanted: object, got: object) -> None:
        if not holds:
            short.append(Shortfall(tier=target.id, field=field, published=_text(wanted), generated=_text(got)))

    own = tier.own_lm_models
    require(set(target.lm_models) <= set(own), "lm_models", target.lm_models, own)
    require(
        lm_rank(tier.recommended_lm) >= lm_rank(target.recommended_lm),
        "recommended_lm",
        target.recommended_lm,
        tier.recommended_lm,
    )
    offload = KNOBS["offload"].rank
    require(tier.backend in (target.backend, Backend.VLLM), "backend", target.backend, tier.backend)
    require(offload(tier.offload) <= offload(target.offload), "offload", target.offload, tier.offload)
    require(tier.quantization in (None, target.quantization), "quantization", target.quantization, tier.quantization)
    require(tier.lm_quantization is None or not target.lm_models, "lm_quantization", None, tier.lm_quantization)
    for lm, state in ((True, "with_lm"), (False, "without_lm")):
        wanted, batch = target.max_duration_s.of(lm=lm), target.max_batch.of(lm=lm)
        longest = tier.frontier.longest(1, lm=lm)
        require(longest >= wanted, f"max_duration_s.{state}", wanted, longest)
        entries = tier.frontier.of(lm=lm)
        most = max((int(size) for size, seconds in entries.items() if seconds >= wanted), default=0)
        require(most >= batch, f"max_batch.{state}", batch, most)
    return short


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return as_text(value)
