"""The entries of policy.json behind a cell: those that decide it, or that its search followed."""

from collections.abc import Iterator
from typing import Any

import msgspec

from calibrate.explain.document import Budget, BudgetTerm, PolicyEntry
from calibrate.table.policy import Margin, Policy, SizeTerm, TierPolicy, budget_bytes
from calibrate.table.proven import ProvenTier

_OF_TIER = ("id", "label", "vram_gib", "certified_gib", "backend", "backends_allowed", "init_lm")
"""Fields of a row that are those of the policy's tier."""

_FOLLOWED = {
    "max_duration_s": ("durations_s",),
    "max_batch": ("batches", "durations_s"),
    "frontier": ("batches", "durations_s"),
}
"""Lists of the policy that the search for a limit went through."""

_WEIGHED = ("lm_models", "recommended_lm", "lm_quantization", "lm_needs")
"""Fields that depend on the language models' weights that the policy allows for a tier."""


def decided_by_policy(field: str) -> bool:
    """Whether a field of a row is an entry of policy.json."""
    return field in _OF_TIER or field == "compile"


def entries_of_decided(field: str, decided: TierPolicy, policy: Policy) -> tuple[PolicyEntry, ...]:
    """Return the entry that is the field itself."""
    if field == "compile":
        return (PolicyEntry(place="compile.default", value=policy.compile.default, why=policy.compile.why),)
    return (_of_tier(field, decided, policy),)


def entries_of_found(field: str, row: ProvenTier, policy: Policy) -> tuple[PolicyEntry, ...]:
    """Return the entries that the search for a field followed."""
    return tuple(_followed(field, row, policy))


def entries_of_sizes(rows: tuple[ProvenTier, ...], policy: Policy) -> tuple[PolicyEntry, ...]:
    """Return the sizes on both sides of a boundary."""
    return tuple(_of_tier("certified_gib", row.decided, policy) for row in rows)


def budget_of(row: ProvenTier, policy: Policy) -> Budget:
    """Return the cap under which a tier was probed, term by term."""
    nameplate, system = row.decided.certified_gib, row.record.card.system
    rules: dict[str, SizeTerm | Margin] = {**policy.budget.of(system)}
    if margin := policy.margin_of(nameplate):
        rules["margin"] = margin
    return Budget(
        nameplate_gib=nameplate,
        terms=tuple(
            BudgetTerm(name=name, gib=taken, rule=rules[name].rule, why=rules[name].why)
            for name, taken in policy.taken_gib(nameplate, system).items()
        ),
        cap_bytes=budget_bytes(nameplate, policy, system),
    )


def _followed(field: str, row: ProvenTier, policy: Policy) -> Iterator[PolicyEntry]:
    for name in _FOLLOWED.get(field, ()):
        entry = getattr(policy, name)
        yield PolicyEntry(place=f"{name}.values", value=_json(entry.values), why=entry.why)
    if field in _WEIGHED:
        yield _of_tier("lm_quantizations", row.decided, policy)
    if field in ("offload", "quantization"):
        rung = policy.preference[row.choice.rung]
        value = {"offload": rung.offload.value, "quantization": _json(rung.quantization)}
        yield PolicyEntry(place=f"preference[{row.choice.rung}]", value=value, why=rung.why)
        yield _of_tier("least_lm", row.decided, policy)


def _of_tier(field: str, decided: TierPolicy, policy: Policy) -> PolicyEntry:
    place = f"tiers[{policy.tiers.index(decided)}].{field}"
    return PolicyEntry(place=place, value=_json(getattr(decided, field)), why=decided.why)


def _json(value: Any) -> Any:
    return msgspec.to_builtins(value)
