"""The tier table: the limits of every class of card, and the strict reader of its file."""

import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.budgets import System, SystemBudget, room_between
from acestep.evidence import Evidence
from acestep.knobs import LM_MODELS, Backend, Offload, Quantization, Variant
from acestep.request import MAX_DURATION_S
from acestep.song_times import TierTimes
from acestep.strict_json import load_strict
from acestep.vram_range import VramRange, require_tiling

TABLE_SCHEMA_VERSION = 1
"""Version of `tiers/generated_tiers.json` that this code reads."""

BATCHES = (1, 2, 4, 8)
"""The batch sizes a frontier has entries for; a batch between two takes the larger one's entry."""

Count = Annotated[int, msgspec.Meta(ge=0)]

SongSeconds = Annotated[int, msgspec.Meta(ge=0, le=int(MAX_DURATION_S))]
"""A song's length; 0 = does not fit."""


class LmStates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit for runs that think and one for runs that do not; 0 = not certified."""

    with_lm: Count
    without_lm: Count

    def of(self, *, lm: bool) -> int:
        """Return the limit with or without a language model."""
        return self.with_lm if lm else self.without_lm


class Frontier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The longest certified song in seconds per batch ("1", "2", "4", "8"); 0 = does not fit."""

    with_lm: dict[str, SongSeconds]
    without_lm: dict[str, SongSeconds]

    def __post_init__(self) -> None:
        for name, entries in (("with_lm", self.with_lm), ("without_lm", self.without_lm)):
            if set(entries) != {str(batch) for batch in BATCHES}:
                raise ValueError(
                    f"frontier.{name} must have the entries {list(map(str, BATCHES))}, got {list(entries)}"
                )
            for fewer, more in pairwise(BATCHES):
                if entries[str(more)] > entries[str(fewer)]:
                    raise ValueError(f"frontier.{name}: a batch of {more} cannot reach longer than one of {fewer}")

    def of(self, *, lm: bool) -> dict[str, int]:
        """Return the frontier with or without a language model."""
        return self.with_lm if lm else self.without_lm

    def longest(self, batch: int, *, lm: bool) -> int:
        """Return the longest song in seconds at any `batch`: the entry of the next larger size, 0 above the largest."""
        entry = next((size for size in BATCHES if size >= batch), None)
        return 0 if entry is None else self.of(lm=lm)[str(entry)]

    def headline_batch(self, *, lm: bool) -> int:
        """Return the largest batch that allows the longest song of a batch of one; 0 if none fits."""
        entries = self.of(lm=lm)
        return max((size for size in BATCHES if entries[str(size)] == entries["1"] > 0), default=0)


class LmNeeds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a language model takes that does not fit beside its tier's own knobs, and the longest song for each batch.

    It was shown on all of `backends`.
    """

    offload: Offload
    quantization: Quantization | None
    lm_quantization: Quantization | None
    backends: Annotated[tuple[Backend, ...], msgspec.Meta(min_length=1)]
    with_lm: dict[str, SongSeconds]


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The limits of every card in a range of nameplates; `certified_gib` is the nameplate they were proven at.

    `lm_models` are all language models that fit under some knobs; those in `lm_needs` need the ones given there. The
    limits with a language model are those of the others.

    `evidence` is keyed by field, or by ``field.with_lm`` if a limit with a language model has other evidence.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    label: str
    vram_gib: VramRange
    certified_gib: Annotated[int, msgspec.Meta(gt=0)]
    lm_models: tuple[str, ...]
    recommended_lm: str | None
    backend: Backend
    backends_allowed: tuple[Backend, ...]
    max_duration_s: LmStates
    max_batch: LmStates
    offload: Offload
    quantization: Quantization | None
    lm_quantization: Quantization | None
    compile: bool
    init_lm: bool
    lm_songs_per_pass: dict[str, Annotated[int, msgspec.Meta(ge=1)]]
    frontier: Frontier
    evidence: dict[str, Evidence]
    lm_needs: dict[str, LmNeeds] = {}

    @property
    def own_lm_models(self) -> tuple[str, ...]:
        """The language models that fit beside the tier's own knobs."""
        return tuple(model for model in self.lm_models if model not in self.lm_needs)

    def thinking_with(self, model: object) -> "Tier":
        """Return the tier with the knobs and limits that a language model needs; itself for any other value."""
        needs = self.lm_needs.get(model) if isinstance(model, str) else None
        if needs is None:
            return self
        # What runs on Apple machines was never probed.
        allowed = tuple(name for name in self.backends_allowed if name in (*needs.backends, Backend.MLX))
        frontier = Frontier(with_lm=needs.with_lm, without_lm=self.frontier.without_lm)
        return msgspec.structs.replace(
            self,
            offload=needs.offload,
            quantization=needs.quantization,
            lm_quantization=needs.lm_quantization,
            backend=self.backend if self.backend in allowed else needs.backends[0],
            backends_allowed=allowed,
            recommended_lm=model,
            frontier=frontier,
            max_duration_s=LmStates(with_lm=frontier.longest(1, lm=True), without_lm=self.max_duration_s.without_lm),
            max_batch=LmStates(with_lm=frontier.headline_batch(lm=True), without_lm=self.max_batch.without_lm),
            lm_needs={name: other for name, other in self.lm_needs.items() if name != model},
        )

    def evidence_for(self, field: str) -> Evidence | None:
        """Return the evidence of a field such as ``frontier.with_lm.4``: its own, or that of what it belongs to."""
        while field not in self.evidence and "." in field:
            field = field.rpartition(".")[0]
        return self.evidence.get(field)

    def __post_init__(self) -> None:
        if self.certified_gib not in self.vram_gib:
            raise ValueError(f"{self.id}: certified_gib is {self.certified_gib}, which is outside its vram_gib")
        if self.backend not in self.backends_allowed:
            raise ValueError(f"{self.id}: backend {self.backend} is not in backends_allowed")
        self._check_lm()
        self._check_headline()
        if strangers := sorted(field for field in self.evidence if field.split(".")[0] not in self.__struct_fields__):
            raise ValueError(f"{self.id}: evidence is given for {strangers}, which are no fields of a tier")

    def _check_lm(self) -> None:
        if self.lm_models != tuple(name for name in LM_MODELS if name in self.lm_models):
            raise ValueError(f"{self.id}: lm_models must be some of {list(LM_MODELS)}, smallest first")
        own = self.own_lm_models
        known = self.recommended_lm in own if own else self.recommended_lm is None
        if not known:
            raise ValueError(f"{self.id}: recommended_lm {self.recommended_lm} is not in lm_models, or is in lm_needs")
        if bool(own) != (self.max_duration_s.with_lm > 0):
            raise ValueError(f"{self.id}: max_duration_s.with_lm must be above 0 exactly where lm_models lists one")
        for name in ("lm_songs_per_pass", "lm_needs"):
            if strangers := sorted(set(getattr(self, name)) - set(self.lm_models)):
                raise ValueError(f"{self.id}: {name} is given for {strangers}, which are not in lm_models")
        for model, needs in self.lm_needs.items():
            if set(needs.with_lm) != {str(batch) for batch in BATCHES}:
                raise ValueError(f"{self.id}: lm_needs.{model}.with_lm must have an entry for each batch")

    def _check_headline(self) -> None:
        """Require that the headline limits agree with the frontier."""
        for lm, state in ((True, "with_lm"), (False, "without_lm")):
            if self.max_duration_s.of(lm=lm) != self.frontier.longest(1, lm=lm):
                raise ValueError(f"{self.id}: max_duration_s.{state} must be the frontier's entry of batch 1")
            if self.max_batch.of(lm=lm) != self.frontier.headline_batch(lm=lm):
                raise ValueError(f"{self.id}: max_batch.{state} must be the largest batch that reaches max_duration_s")


class SizeBoundary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Smallest swept size that fits and largest smaller one that does not, in GiB; 0 if there is none."""

    fits_gib: Count
    fails_gib: Count
    tier: str


class Boundaries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sizes from which INT8 and offload can be switched off, and from which each language model fits."""

    without_int8: SizeBoundary
    without_offload: SizeBoundary
    lm: dict[str, SizeBoundary]

    @property
    def named(self) -> dict[str, SizeBoundary]:
        """Return every boundary by its path here, such as `lm.4B`."""
        return {
            "without_int8": self.without_int8,
            "without_offload": self.without_offload,
            **{f"lm.{model}": boundary for model, boundary in self.lm.items()},
        }


class Trade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a tier gives less of something than the one below it, and what that buys: a sentence."""

    system: System
    tier: str
    sentence: str


class VariantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The tiers of one DiT variant, smallest first. The VRAM guard uses `memory_model`.

    `windows` are the tiers that promise something else there; the others are the same on every system. `trades` say
    where a larger card gets less of something. `times` are seconds by the id of a tier; older tables have none.
    """

    tiers: Annotated[tuple[Tier, ...], msgspec.Meta(min_length=1)]
    boundaries: Boundaries
    memory_model: dict[str, float]
    windows: tuple[Tier, ...] = ()
    trades: tuple[Trade, ...] = ()
    times: dict[str, TierTimes] = {}

    def on(self, system: System) -> "VariantTable":
        """Return the table with the promises of one system."""
        own = {tier.id: tier for tier in self.windows} if system is System.WINDOWS else {}
        return msgspec.structs.replace(
            self,
            tiers=tuple(own.get(tier.id, tier) for tier in self.tiers),
            windows=(),
            trades=tuple(trade for trade in self.trades if trade.system is system),
        )

    def __post_init__(self) -> None:
        ranges = {tier.id: tier.vram_gib for tier in self.tiers}
        require_tiling([(tier.id, tier.vram_gib) for tier in self.tiers])
        for tier in self.windows:
            if ranges.get(tier.id) != tier.vram_gib:
                raise ValueError(f"windows has {tier.id}, which is no tier of the same vram_gib")
        if strangers := sorted(self.times.keys() - ranges.keys()):
            raise ValueError(f"times has {strangers}, which are no tiers")
        ids = {"", *ranges}
        for name, boundary in self.boundaries.named.items():
            if boundary.tier not in ids:
                raise ValueError(f"boundaries.{name}.tier must be empty or the id of a tier, got {boundary.tier!r}")
        for name, value in self.memory_model.items():
            if not math.isfinite(value):
                raise ValueError(f"memory_model.{name} must be a finite number, got {value}")


class GeneratedFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sources of a table: digests of records and policy, and the code version that merged them."""

    records: tuple[str, ...]
    policy: str
    code_version: str


class Shortfall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell of turbo's tiers with a lower limit than the published table, with the texts of both."""

    tier: str
    field: str
    published: str
    generated: str


class TierTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tiers/generated_tiers.json` as a value; `shortfalls` are the cells where the published table promises more.

    `budgets` are those that the tiers are certified with, the smallest card first.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    table_version: int
    generated_from: GeneratedFrom
    variants: dict[Variant, VariantTable]
    shortfalls: tuple[Shortfall, ...] = ()
    budgets: tuple[SystemBudget, ...] = ()

    def __post_init__(self) -> None:
        if Variant.TURBO not in self.variants:
            raise ValueError("variants must hold turbo, the default one")
        for system in System:
            sizes = [budget.nameplate_gib for budget in self.budgets if budget.system is system]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"budgets of {system} must have rising sizes, got {sizes}")

    def on(self, system: System) -> "TierTable":
        """Return the table with the promises of one system."""
        return msgspec.structs.replace(
            self,
            variants={name: table.on(system) for name, table in self.variants.items()},
            budgets=tuple(budget for budget in self.budgets if budget.system is system),
        )

    def without_times(self) -> "TierTable":
        """Return what records and policy alone decide: the table without the seconds, which are estimated."""
        variants = {name: msgspec.structs.replace(table, times={}) for name, table in self.variants.items()}
        return msgspec.structs.replace(self, variants=variants)

    def room_bytes(self, nameplate_gib: float) -> int:
        """Return the bytes that promises may count on, on a card of a nameplate; 0 if the table does not say."""
        return room_between(self.budgets, nameplate_gib)


def lm_rank(model: str | None) -> int:
    """Return the index of a language model among all of them, smallest first; -1 for none."""
    return -1 if model is None else LM_MODELS.index(model)


def data_file(name: str) -> Path:
    """Return the path of a data file of `tiers/`: in the checkout if there is one, else inside the installed wheel."""
    checkout = Path(__file__).parent.parent / "tiers" / name
    return checkout if checkout.is_file() else Path(__file__).parent / "data" / name


def load_tiers(path: Path | None = None) -> TierTable:
    """Return the tier table in force, or the one in `path`; `InvalidInputError` names the file and the field."""
    return _table_in_force() if path is None else load_strict(path, TierTable, TABLE_SCHEMA_VERSION)


def tiers_here() -> TierTable:
    """Return the table in force with the promises of this machine's system."""
    return load_tiers().on(System.here())


@cache
def _table_in_force() -> TierTable:
    return load_strict(data_file("generated_tiers.json"), TierTable, TABLE_SCHEMA_VERSION)
