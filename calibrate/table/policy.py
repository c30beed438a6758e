"""The policy: how measured boundaries become a table. Values with reasons, read strictly from `tiers/policy.json`."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.errors import UsageError
from acestep.knobs import LM_MODELS, Backend, Offload, Quantization
from acestep.request import MAX_DURATION_S
from acestep.strict_json import load_strict
from acestep.tiers import BATCHES, VramRange, data_file, require_tiling
from acestep.units import gib_to_bytes
from calibrate.files import digest

POLICY_SCHEMA_VERSION = 1
"""Version of `tiers/policy.json` that this code reads."""

Why = Annotated[str, msgspec.Meta(min_length=10)]
"""The reason of a choice: every number of the policy has one."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

Gib = Annotated[float, msgspec.Meta(ge=0, lt=2**20)]
"""An amount of memory in GiB, finite and below the size limit of cards."""

_Seconds = Annotated[int, msgspec.Meta(ge=1, le=int(MAX_DURATION_S))]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every value in the policy file."""


class SizeShortfall(_Data, frozen=True):
    """How much less a card reports than its box says: `share` of the nameplate, at most `at_most_gib`."""

    at_most_gib: Gib
    share: Share
    why: Why


class Context(_Data, frozen=True):
    """The driver's memory for one process before the first tensor, in GiB."""

    gib: Gib
    why: Why


class Headroom(_Data, frozen=True):
    """The share of the nameplate left free for a desktop or a browser."""

    share: Share
    why: Why


class BudgetTerms(_Data, frozen=True):
    """The terms subtracted from a nameplate; the allocator may have the rest."""

    shortfall: SizeShortfall
    context: Context
    headroom: Headroom

    def taken_gib(self, nameplate_gib: float) -> dict[str, float]:
        """Return what each term subtracts from a nameplate, by its name here, in GiB."""
        return {
            "shortfall": min(self.shortfall.at_most_gib, self.shortfall.share * nameplate_gib),
            "context": self.context.gib,
            "headroom": self.headroom.share * nameplate_gib,
        }

    def left_gib(self, nameplate_gib: float) -> float:
        """Return the GiB left of a nameplate; negative if the terms exceed it."""
        left = nameplate_gib
        for taken in self.taken_gib(nameplate_gib).values():
            left -= taken
        return left


class TierPolicy(_Data, frozen=True):
    """The decided, not measured, values of a tier; `certified_gib` is the nameplate its limits are proven at.

    `least_lm` is the smallest language model that the tier has to offer, in the first of `lm_quantizations` that lets
    it offer the largest.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    label: Annotated[str, msgspec.Meta(min_length=1)]
    vram_gib: VramRange
    certified_gib: Annotated[int, msgspec.Meta(gt=0)]
    backend: Backend
    backends_allowed: tuple[Backend, ...]
    least_lm: str
    lm_quantizations: Annotated[tuple[Quantization | None, ...], msgspec.Meta(min_length=1)]
    init_lm: bool
    why: Why

    def __post_init__(self) -> None:
        if self.certified_gib not in self.vram_gib:
            raise ValueError(f"certified_gib of {self.id} is {self.certified_gib}, which is outside its own vram_gib")
        if self.backend not in self.backends_allowed:
            raise ValueError(f"backend of {self.id} is {self.backend}, which is not in its backends_allowed")
        if self.least_lm not in LM_MODELS:
            raise ValueError(f"least_lm of {self.id} is {self.least_lm}, expected one of {', '.join(LM_MODELS)}")


class Rung(_Data, frozen=True):
    """One way to make the models fit; a rung comes before every rung that gives up more."""

    offload: Offload
    quantization: Quantization | None
    why: Why


class DurationGrid(_Data, frozen=True):
    """The song lengths tried, in whole seconds, shortest first."""

    values: Annotated[tuple[_Seconds, ...], msgspec.Meta(min_length=1)]
    why: Why

    def __post_init__(self) -> None:
        _require_rising("durations_s", self.values)


class BatchList(_Data, frozen=True):
    """The batch sizes tried, smallest first; a frontier has an entry for each."""

    values: tuple[int, ...]
    why: Why

    def __post_init__(self) -> None:
        if self.values != BATCHES:
            raise ValueError(f"batches must be {list(BATCHES)}, the entries a frontier has, got {list(self.values)}")


class CompileDefault(_Data, frozen=True):
    """Whether a plan compiles the transformer by default."""

    default: bool
    why: Why


class Policy(_Data, frozen=True):
    """`tiers/policy.json` as a value."""

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    tiers: Annotated[tuple[TierPolicy, ...], msgspec.Meta(min_length=1)]
    budget: BudgetTerms
    preference: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)]
    durations_s: DurationGrid
    batches: BatchList
    compile: CompileDefault

    def __post_init__(self) -> None:
        require_tiling([(tier.id, tier.vram_gib) for tier in self.tiers])
        _require_rising("certified_gib", self.certified_sizes_gib)
        rungs = [(rung.offload, rung.quantization) for rung in self.preference]
        if len(set(rungs)) != len(rungs):
            raise ValueError("preference lists the same rung twice")
        for tier in self.tiers:
            if self.budget.left_gib(tier.certified_gib) <= 0:
                raise ValueError(
                    f"budget leaves nothing of the {tier.certified_gib} GiB that {tier.id} is certified at"
                )

    @property
    def digest(self) -> str:
        """The digest that a table made under this policy contains."""
        return digest(self)

    def tier_of(self, nameplate_gib: float) -> TierPolicy:
        """Return the tier whose range contains a nameplate."""
        return next(tier for tier in self.tiers if nameplate_gib in tier.vram_gib)

    @property
    def certified_sizes_gib(self) -> tuple[int, ...]:
        """The nameplate each tier is proven at, smallest first."""
        return tuple(tier.certified_gib for tier in self.tiers)


def budget_bytes(nameplate_gib: float, policy: Policy) -> int:
    """Return the bytes the allocator may hold on a card of this nameplate.

    Raises `UsageError` if nothing would be left.
    """
    left = policy.budget.left_gib(nameplate_gib)
    if left <= 0:
        raise UsageError(
            f"a card of {nameplate_gib:g} GiB leaves nothing after the driver's own memory; give a larger size"
        )
    return gib_to_bytes(left)


def load_policy(path: Path | None = None) -> Policy:
    """Return the policy in force, or the one in `path`; `InvalidInputError` names the file and the field."""
    return _policy_in_force() if path is None else load_strict(path, Policy, POLICY_SCHEMA_VERSION)


@cache
def _policy_in_force() -> Policy:
    return load_strict(data_file("policy.json"), Policy, POLICY_SCHEMA_VERSION)


def _require_rising(name: str, values: tuple[int, ...]) -> None:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"{name} must rise, got {list(values)}")
