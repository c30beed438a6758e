"""The result of `tier-test`, as the JSON document that `--benchmark-output` writes."""

import msgspec

from acestep.knobs import Attention, Backend, Offload, Quantization, Variant
from acestep.request import DecodePath
from calibrate.probes.base import MeasuredStage
from calibrate.record.measurement import keeps_promise
from calibrate.table.knobs import Config
from calibrate.verdict import Verdict

TIER_TEST_SCHEMA_VERSION = 1
"""Version of the document."""

NameplateGib = int | float
"""A nameplate in GiB; whole ones are written without a point."""


class TierTestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One probe of a tier; `configs` names every config that runs with these knobs, `config` the first of them."""

    tier: str
    vram_gib: NameplateGib
    variant: Variant
    config: Config
    configs: tuple[Config, ...]
    lm: str | None
    backend: Backend
    attention: Attention
    compiled: bool
    offload: Offload
    quantization: Quantization | None
    batch: int
    duration_s: int
    verdict: Verdict
    songs_per_pass: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    seconds: float
    decode_path: DecodePath
    warnings: tuple[str, ...]
    stages: tuple[MeasuredStage, ...]

    @property
    def holds(self) -> bool:
        """Whether the row proves a promise."""
        return keeps_promise(self, self.batch)


class SweptBoundary(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest size from which on every swept size fits (0: none), and the one below it (0: the smallest fits)."""

    fits_gib: NameplateGib
    fails_gib: NameplateGib
    tier: str


class SweptBoundaries(msgspec.Struct, frozen=True, kw_only=True):
    """The swept sizes from which INT8 and offload can be off, and from which each language model fits.

    `lm` is empty if not requested.
    """

    without_int8: SweptBoundary
    without_offload: SweptBoundary
    lm: dict[str, SweptBoundary]


class BatchBoundary(msgspec.Struct, frozen=True, kw_only=True):
    """The largest batch that fits at a tier's longest song; 0 = none, None = not asked for."""

    tier: str
    vram_gib: NameplateGib
    with_lm: int | None
    without_lm: int | None


class TierTest(msgspec.Struct, frozen=True, kw_only=True):
    """The document. `boundaries` is None if they were not requested; `failed` has a sentence per broken promise."""

    schema_version: int
    device: str
    results: tuple[TierTestRow, ...]
    boundaries: SweptBoundaries | None
    batch_boundaries: tuple[BatchBoundary, ...]
    failed: tuple[str, ...]
