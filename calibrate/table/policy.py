"""The policy: how measured boundaries become a table. Values with reasons, read strictly from `tiers/policy.json`."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.budgets import System
from acestep.errors import UsageError
from acestep.knobs import LM_MODELS, Backend, Offload, Quantization
from acestep.request import MAX_DURATION_S
from acestep.strict_json import load_strict
from acestep.tiers import BATCHES, data_file
from acestep.units import GIB, MIB, gib_to_bytes
from acestep.vram_range import VramRange, require_tiling
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


class SizeTerm(_Data, frozen=True, kw_only=True, omit_defaults=True):
    """What one thing takes of a card's nameplate, in GiB; `by_size` are pairs of a nameplate and what is taken of it.

    Between two sizes it is in proportion, outside them that of the nearest. A `share` of the nameplate is at most
    `at_most_gib`, and `gib` is the same for every size. One of the three ways is given.
    """

    share: Share = 0.0
    at_most_gib: Gib | None = None
    gib: Gib = 0.0
    by_size: tuple[tuple[Gib, Gib], ...] = ()
    why: Why

    def __post_init__(self) -> None:
        if sum((self.share > 0, self.gib > 0, bool(self.by_size))) > 1:
            raise ValueError("a term is given as a share, as gib or by_size, and not in two ways")
        _require_rising("by_size", tuple(size for size, _ in self.by_size))

    def of(self, nameplate_gib: float) -> float:
        """Return what is taken of a nameplate, in GiB."""
        if self.by_size:
            return _between(self.by_size, nameplate_gib)
        of_share = self.share * nameplate_gib
        return self.gib + (of_share if self.at_most_gib is None else min(self.at_most_gib, of_share))

    @property
    def rule(self) -> str:
        """How the term is found, in words."""
        if self.by_size:
            return "by size: " + ", ".join(f"{taken:g} of {size:g} GiB" for size, taken in self.by_size)
        if not self.share:
            return "the same for every card"
        return (
            f"{self.share:.0%}" if self.at_most_gib is None else f"{self.share:.0%}, at most {self.at_most_gib:g} GiB"
        )


class Margin(_Data, frozen=True):
    """What a promise leaves of the rest: a `share` of it, and no less than `at_least_mib`."""

    share: Share
    at_least_mib: Annotated[int, msgspec.Meta(ge=0)]
    why: Why

    def of(self, left_gib: float) -> float:
        """Return what is left free of so many GiB."""
        return max(self.share * left_gib, self.at_least_mib * MIB / GIB)

    @property
    def rule(self) -> str:
        """How the margin is found, in words."""
        return f"{self.share:.0%} of the rest, at least {self.at_least_mib} MiB"


class BudgetTerms(_Data, frozen=True, omit_defaults=True):
    """The terms subtracted from a nameplate; the allocator may have the rest.

    `shortfall` is what the driver reserves, so that a card reports less than its box says. `context` is the driver's
    memory for one process before the first tensor. `headroom` is left to a desktop or a browser. `windows` is what
    Windows and its desktop keep on top of that, counted there only.
    """

    shortfall: SizeTerm
    context: SizeTerm
    headroom: SizeTerm
    windows: SizeTerm | None = None

    def of(self, system: System) -> dict[str, SizeTerm]:
        """Return the terms that count on a system, by their names here."""
        terms = {"shortfall": self.shortfall, "context": self.context, "headroom": self.headroom}
        return terms | ({"windows": self.windows} if self.windows and system is System.WINDOWS else {})


class TierPolicy(_Data, frozen=True, kw_only=True, omit_defaults=True):
    """The decided, not measured, values of a tier; `certified_gib` is the nameplate its limits are proven at.

    Its `margin` replaces that of the policy. `least_lm` is the smallest language model that the tier has to offer, in
    the first of `lm_quantizations` that lets it offer the largest.
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
    margin: Margin | None = None

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


class Policy(_Data, frozen=True, kw_only=True, omit_defaults=True):
    """`tiers/policy.json` as a value; an older file states no `margin`, and has none."""

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    tiers: Annotated[tuple[TierPolicy, ...], msgspec.Meta(min_length=1)]
    budget: BudgetTerms
    preference: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)]
    durations_s: DurationGrid
    batches: BatchList
    compile: CompileDefault
    margin: Margin | None = None

    def __post_init__(self) -> None:
        require_tiling([(tier.id, tier.vram_gib) for tier in self.tiers])
        _require_rising("certified_gib", self.certified_sizes_gib)
        rungs = [(rung.offload, rung.quantization) for rung in self.preference]
        if len(set(rungs)) != len(rungs):
            raise ValueError("preference lists the same rung twice")
        for tier, system in product(self.tiers, System):
            if self.left_gib(tier.certified_gib, system) <= 0:
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

    def margin_of(self, nameplate_gib: float) -> Margin | None:
        """Return the margin of the tier that a nameplate belongs to; None without one."""
        return self.tier_of(nameplate_gib).margin or self.margin

    def taken_gib(self, nameplate_gib: float, system: System) -> dict[str, float]:
        """Return what each term of the budget takes of a nameplate, and the margin, by their names here, in GiB."""
        taken = {name: term.of(nameplate_gib) for name, term in self.budget.of(system).items()}
        margin = self.margin_of(nameplate_gib)
        return taken if margin is None else taken | {"margin": margin.of(_left(nameplate_gib, taken))}

    def left_gib(self, nameplate_gib: float, system: System) -> float:
        """Return the GiB left of a nameplate; negative if the terms exceed it."""
        return _left(nameplate_gib, self.taken_gib(nameplate_gib, system))

    @property
    def certified_sizes_gib(self) -> tuple[int, ...]:
        """The nameplate each tier is proven at, smallest first."""
        return tuple(tier.certified_gib for tier in self.tiers)


def budget_bytes(nameplate_gib: float, policy: Policy, system: System = System.LINUX) -> int:
    """Return the bytes that a promise may count on: what the allocator may hold on such a card, less the margin.

    Raises `UsageError` if nothing would be left.
    """
    left = policy.left_gib(nameplate_gib, system)
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


def _left(nameplate_gib: float, taken: Mapping[str, float]) -> float:
    left = nameplate_gib
    for amount in taken.values():
        left -= amount
    return left


def _between(points: Sequence[tuple[float, float]], size: float) -> float:
    """Interpolate linearly between the two nearest points; outside them the nearest one's value."""
    above = next((number for number, (at, _) in enumerate(points) if at >= size), len(points))
    if above in (0, len(points)):
        return points[min(above, len(points) - 1)][1]
    (low, less), (high, more) = points[above - 1], points[above]
    return less + (more - less) * (size - low) / (high - low)


def _require_rising(name: str, values: Sequence[float]) -> None:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"{name} must rise, got {list(values)}")
