"""The tier table: what every class of card is promised, and the strict reader of its file."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import InvalidInputError
from acestep.knobs import Backend, Offload, Quantization, Variant

SCHEMA_VERSION = 1
"""Version of `tiers/generated_tiers.json` that this code reads."""

BATCHES = (1, 2, 4, 8)
"""The batch sizes a frontier has entries for; a batch between two takes the larger one's entry."""


class VramRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of nameplates in GiB; an `upper` of None has no end."""

    lower: float
    lower_inclusive: bool
    upper: float | None
    upper_inclusive: bool | None

    def __contains__(self, nameplate_gib: float) -> bool:
        above = nameplate_gib >= self.lower if self.lower_inclusive else nameplate_gib > self.lower
        if self.upper is None:
            return above
        return above and (nameplate_gib <= self.upper if self.upper_inclusive else nameplate_gib < self.upper)


class LmStates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit for runs that think and one for runs that do not; 0 = not certified."""

    with_lm: int
    without_lm: int

    def of(self, *, lm: bool) -> int:
        """The limit that applies when a language model does, or does not, think first."""
        return self.with_lm if lm else self.without_lm


class Frontier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The longest certified song in seconds per batch ("1", "2", "4", "8"); 0 = does not fit."""

    with_lm: dict[str, int]
    without_lm: dict[str, int]

    def of(self, *, lm: bool) -> dict[str, int]:
        """The frontier with, or without, a language model."""
        return self.with_lm if lm else self.without_lm


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a number comes from: its kind, and the digest of the record that holds the probes."""

    kind: str
    record: str

    def __post_init__(self) -> None:
        if self.kind not in ("measured", "simulated", "estimated", "policy"):
            raise ValueError(f"evidence kind must be measured, simulated, estimated or policy, got {self.kind!r}")


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every card in a range of nameplates is promised; `certified_gib` is the nameplate it was proven at."""

    id: str
    label: str
    vram_gib: VramRange
    certified_gib: int
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
    lm_songs_per_pass: dict[str, int]
    frontier: Frontier
    evidence: dict[str, Evidence]


class Boundary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Smallest swept size that fits and largest below it that does not, in GiB; 0 as in the design's contract."""

    fits_gib: int
    fails_gib: int
    tier: str


class Boundaries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which size on INT8 and offload can be switched off, and each language model fits."""

    without_int8: Boundary
    without_offload: Boundary
    lm: dict[str, Boundary]


class VariantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tiers of one DiT variant, smallest first. `memory_model` feeds the VRAM guard."""

    tiers: tuple[Tier, ...]
    boundaries: Boundaries
    memory_model: dict[str, float]

    def tier_for(self, nameplate_gib: float) -> Tier:
        """The tier whose range holds a nameplate."""
        return next(tier for tier in self.tiers if nameplate_gib in tier.vram_gib)


class GeneratedFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a table was made from: digests of records and policy, and the code version that merged them."""

    records: tuple[str, ...]
    policy: str
    code_version: str


class TierTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tiers/generated_tiers.json` as a value."""

    schema_version: int
    table_version: int
    generated_from: GeneratedFrom
    variants: dict[Variant, VariantTable]


def data_file(name: str) -> Path:
    """A data file of `tiers/`, from the checkout when there is one, else from inside the installed wheel."""
    checkout = Path(__file__).parent.parent / "tiers" / name
    return checkout if checkout.is_file() else Path(__file__).parent / "data" / name


def read_json(path: Path) -> Any:
    """The document in a JSON file; `InvalidInputError` naming the file when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(path, f"cannot be read ({error})") from None
    except ValueError as error:
        raise InvalidInputError(path, f"is not JSON ({error}); was it cut short?") from None


def load_tiers(path: Path | None = None) -> TierTable:
    """The tier table in force, or the one in `path`; `InvalidInputError` names the file and the field at fault."""
    if path is None:
        return _table_in_force()
    document = read_json(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidInputError(
            path, f"schema_version is {version}, this program reads up to {SCHEMA_VERSION}; update it"
        )
    try:
        return msgspec.convert(document, TierTable)
    except msgspec.ValidationError as error:
        raise InvalidInputError(path, str(error)) from None


@cache
def _table_in_force() -> TierTable:
    return load_tiers(data_file("generated_tiers.json"))
