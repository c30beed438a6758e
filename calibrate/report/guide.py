"""The guide's texts about a table, in one language: rows of cells and lists of tiers. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.knobs import Backend, Offload, Variant
from acestep.request import MAX_LYRIC_TOKENS
from acestep.tiers import BATCHES, LmNeeds, LmStates, SizeBoundary, Tier, TierTable, VariantTable
from acestep.units import gib
from calibrate.record.measurement import Measurement
from calibrate.report.marks import GAP, MARKS, cited, mark_of, marked, short
from calibrate.report.words import GuideText
from calibrate.table.knobs import Config
from calibrate.table.policy import Policy, budget_bytes

DECODE_TILES = (64, 128, 256, 512, 1024, 1536)
"""Latent frames of a decode tile (`acestep.dit.vae_decode.TILES`, which needs torch; a test)."""

_SHOWN = ("max_duration_s", "max_batch", "offload", "quantization")

_SHOWN_WITH_LM = ("lm_models", "max_duration_s.with_lm", "max_batch.with_lm")

_DASH = "—"

_TIPS = ((0, "tip_smallest"), (6, "tip_small"), (8, "tip_middle"), (16, "tip_large"), (24, "tip_largest"))
"""The certified size in GiB from which each advice is given: the groups of the published guide."""

Rows = Sequence[Sequence[str]]


class Guide(msgspec.Struct, frozen=True, kw_only=True):
    """A table, its policy and its records, described in the language of `words`."""

    words: GuideText
    table: TierTable
    policy: Policy
    records: tuple[Measurement, ...]

    @property
    def default(self) -> VariantTable:
        """The table of the default variant."""
        return self.table.variants[Variant.TURBO]

    @property
    def others(self) -> dict[Variant, VariantTable]:
        """The tables of every other variant."""
        return {variant: table for variant, table in self.table.variants.items() if variant is not Variant.TURBO}

    @property
    def missing(self) -> list[Variant]:
        """The variants that no record certifies."""
        return [variant for variant in Variant if variant not in self.table.variants]

    def tier_rows(self, tiers: Sequence[Tier]) -> Rows:
        """Return the tiers as published guides show them, every limit with its mark."""
        columns = ("vram", "tier", "lm", "recommended", "backend", "duration", "batch", "offload", "quantization")
        heading = tuple(self.words(f"col_{column}") for column in (*columns, "evidence"))
        return [heading, *(self._tier_row(tier) for tier in tiers)]

    def _tier_row(self, tier: Tier) -> tuple[str, ...]:
        shown = (*_SHOWN, *_SHOWN_WITH_LM) if tier.lm_models else _SHOWN
        return (
            tier.label,
            self.words.tier(tier),
            self._lm_models(tier),
            tier.recommended_lm or _DASH,
            f"`{tier.backend}`",
            self._limits(tier, "max_duration_s", self.words.duration),
            self._limits(tier, "max_batch", lambda batch: str(batch or _DASH)),
            marked(self._offload(tier), mark_of(tier, "offload")),
            marked(self._quantization(tier), mark_of(tier, "quantization")),
            cited(tier, shown),
        )

    def frontier_rows(self, tiers: Sequence[Tier]) -> Rows:
        """Return the longest song per batch: one row for each tier and, if it has a language model, one with it."""
        heading = [self.words(f"col_{column}") for column in ("tier", "certified", "budget", "thinking")]
        heading += [self.words("col_batch_of", n=batch) for batch in BATCHES] + [self.words("col_evidence")]
        return [heading, *(self._frontier_row(tier, lm=lm) for tier in tiers for lm in self._lm_states(tier))]

    def _frontier_row(self, tier: Tier, *, lm: bool) -> tuple[str, ...]:
        field = "frontier.with_lm" if lm else "frontier.without_lm"
        return (
            self.words.tier(tier),
            f"{tier.certified_gib} GiB",
            gib(budget_bytes(tier.certified_gib, self.policy)),
            self.words("with_lm" if lm else "without_lm"),
            *(self._marked(tier, field, self.words.duration(tier.frontier.longest(n, lm=lm))) for n in BATCHES),
            cited(tier, (field,)),
        )

    def passes_rows(self, tiers: Sequence[Tier]) -> Rows:
        """Return how many songs each language model plans in one pass; empty if the table does not say."""
        models = list(dict.fromkeys(model for tier in tiers for model in tier.lm_songs_per_pass))
        if not models:
            return []
        cells = [
            (
                self.words.tier(tier),
                *(self._passes(tier, model) for model in models),
                cited(tier, ("lm_songs_per_pass",)),
            )
            for tier in tiers
            if tier.lm_songs_per_pass
        ]
        return [(self.words("col_tier"), *models, self.words("col_evidence")), *cells]

    def _passes(self, tier: Tier, model: str) -> str:
        songs = tier.lm_songs_per_pass.get(model)
        return _DASH if songs is None else self._marked(tier, "lm_songs_per_pass", str(songs))

    def boundary_rows(self, variant: Variant) -> Rows:
        """Return the certified sizes from which INT8 and offload can be off, and each language model fits."""
        table = self.table.variants[variant]
        named = [
            (self.words("without_int8"), table.boundaries.without_int8, "quantization"),
            (self.words("without_offload"), table.boundaries.without_offload, "offload"),
        ]
        for model, boundary in table.boundaries.lm.items():
            named.append((self.words("lm_boundary", model=model), boundary, "lm_models"))
        columns = ("col_question", "col_fits", "col_tier", "col_fails", "col_evidence")
        return [[self.words(column) for column in columns], *(self._boundary_row(table, *row) for row in named)]

    def _boundary_row(self, table: VariantTable, name: str, found: SizeBoundary, field: str) -> tuple[str, ...]:
        # A boundary has no evidence of its own: it depends on the probes of the tier it names, on both sides.
        tier = next((tier for tier in table.tiers if tier.id == found.tier), table.tiers[-1])
        return (
            name,
            f"{found.fits_gib} GiB" if found.fits_gib else self.words("fits_nowhere"),
            self.words.tier(tier) if found.tier else _DASH,
            f"{found.fails_gib} GiB" if found.fails_gib else self.words("fails_nowhere"),
            cited(tier, (field if field in tier.evidence else "frontier",)),
        )

    def shortfall_rows(self) -> Rows:
        """Return the cells in which the published guide promises more; empty if there are none."""
        short = self.table.shortfalls
        heading = tuple(self.words(f"col_{column}") for column in ("tier", "value", "published", "here"))
        cells = [tuple(f"`{text}`" for text in (s.tier, s.field, s.published, s.generated)) for s in short]
        return [heading, *cells] if cells else []

    @property
    def trades(self) -> list[str]:
        """Where a larger card gets less of something, as sentences of the table, with their variants."""
        return [
            f"`{variant}`{' (Windows)' if trade.system is System.WINDOWS else ''}: {trade.sentence}"
            for variant, table in self.table.variants.items()
            for trade in table.trades
        ]

    def windows_rows(self) -> Rows:
        """Return what is promised otherwise on Windows, cell by cell; empty if it is the same there."""
        cells = [
            tuple(f"`{text}`" for text in (variant, tier.id, field, *values))
            for variant, table in self.table.variants.items()
            for tier in table.tiers
            for own in table.windows
            if own.id == tier.id
            for field, *values in _other_values(tier, own)
        ]
        heading = tuple(self.words(f"col_{column}") for column in ("variant", "tier", "value"))
        return [(*heading, "Linux", "Windows"), *cells] if cells else []

    def record_lines(self) -> list[str]:
        """Return every record of the table, as a phrase each."""
        return [
            self.words(
                "record_line",
                mark=MARKS[record.evidence],
                card=f"`{record.card.name}`",
                probes=len(record.probes),
                cap=f"`{record.cap_method}`",
                torch=f"`{record.environment.torch}`",
                code=f"`{record.code_version}`",
            )
            + f" `{record.digest}`"
            for record in self.records
            if record.digest in self.table.generated_from.records
        ]

    @property
    def measured_cards(self) -> list[str]:
        """The real cards among the records, each with its record's digest."""
        cards = {
            f"`{record.card.name}` ({MARKS[EvidenceKind.MEASURED]}{GAP}`{short(record.digest)}`)"
            for record in self.records
            if record.evidence is EvidenceKind.MEASURED and record.digest in self.table.generated_from.records
        }
        return sorted(cards)

    def named(self, choose: Callable[[Tier], object]) -> str:
        """Return the chosen tiers of the default variant, as a phrase; "" if none is chosen."""
        tiers = self.default.tiers
        chosen = [tier for tier in tiers if choose(tier)]
        return (
            self.words("all_tiers")
            if len(chosen) == len(tiers)
            else self.words.listed(self.words.tier(tier) for tier in chosen)
        )

    def tips(self) -> list[str]:
        """Return advice for each group of card sizes, smallest first, with the table's values."""
        bounds = [*(size for size, _ in _TIPS[1:]), float("inf")]
        found = []
        for (lower, key), upper in zip(_TIPS, bounds, strict=True):
            group = [tier for tier in self.default.tiers if lower <= tier.certified_gib < upper]
            if group:
                labels = self.words.listed(tier.label for tier in group)
                found.append(f"{self.words(key, labels=labels)} {self._here(group)}")
        return found

    def _here(self, tiers: Sequence[Tier]) -> str:
        offload = _distinct(f"`{tier.offload}`" for tier in tiers)
        weights = _distinct(
            self._quantization(tier) if tier.quantization else self.words("tip_exact") for tier in tiers
        )
        models = _distinct(model for tier in tiers for model in tier.lm_models)
        lm = self.words("tip_lm", models=self.words.listed(models)) if models else self.words("tip_no_lm")
        return self.words(
            "tip_here", offload=self.words.listed(offload), quantization=self.words.listed(weights), lm=lm
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Return every number of the sentences, by the name of its placeholder."""
        budget, last = self.policy.budget, self.default.tiers[-1]
        sizes = self.policy.certified_sizes_gib
        context = sorted({budget.context.of(size) for size in sizes})
        return {
            "at_most": f"{max(budget.shortfall.of(size) for size in sizes):.2g}",
            "context": self.words("from_to", low=f"{context[0]:g}", high=f"{context[-1]:g}")
            if len(context) > 1
            else f"{context[0]:g}",
            "headroom": self._percent(budget.headroom.share),
            "margins": self._margins(),
            "size": last.certified_gib,
            "label": last.label,
            "ranges": "; ".join(f"{tier.label}: {self.words.range(tier.vram_gib)}" for tier in self._between()),
            "lyrics": f"{MAX_LYRIC_TOKENS:,}",
            "tiles": self.words.listed(map(str, DECODE_TILES)),
            "batches": self.words.listed(map(str, BATCHES)),
            "count": len(Config),
            "variant": Variant.TURBO.value,
        }

    def _percent(self, share: float) -> str:
        return self.words("percent", n=f"{share * 100:g}")

    def _margins(self) -> str:
        """Return the policy's margin, and after it those of tiers with their own; empty without one."""
        if self.policy.margin is None:
            return ""
        own = [
            self.words("margin_of", tier=self.words.tier(tier), margin=self._percent(decided.margin.share))
            for tier, decided in zip(self.default.tiers, self.policy.tiers, strict=True)
            if decided.margin is not None
        ]
        return self.words.listed([self._percent(self.policy.margin.share), *own])

    def _between(self) -> list[Tier]:
        """Return the tiers between the smallest and the largest: their labels leave open which end belongs to them."""
        return [tier for tier in self.default.tiers if tier.vram_gib.lower and tier.vram_gib.upper is not None]

    def _lm_states(self, tier: Tier) -> tuple[bool, ...]:
        return (False, True) if tier.own_lm_models else (False,)

    def _lm_models(self, tier: Tier) -> str:
        if not tier.lm_models:
            return self.words("none")
        weights = f" ({tier.lm_quantization.upper()})" if tier.lm_quantization else ""
        others = [f"{model} ({self._needs(tier, needs)})" for model, needs in tier.lm_needs.items()]
        own = self.words.listed(tier.own_lm_models) + weights if tier.own_lm_models else ""
        return self._marked(tier, "lm_models", self.words.listed(filter(None, [own, *others])))

    def _needs(self, tier: Tier, needs: LmNeeds) -> str:
        """The knobs that a language model needs, those that are not the tier's own."""
        named = [f"`{needs.offload}`"] if needs.offload is not tier.offload else []
        if needs.lm_quantization is not tier.lm_quantization:
            named.append(needs.lm_quantization.upper() if needs.lm_quantization else self.words("tip_exact"))
        unable = [name for name in tier.backends_allowed if name not in (*needs.backends, Backend.MLX)]
        named += [f"`{name}`" for name in needs.backends] if unable else []
        return self.words.listed(named)

    def _limits(self, tier: Tier, field: str, show: Callable[[int], str]) -> str:
        """Return a limit with and without a language model, with one mark if both have the same."""
        limits: LmStates = getattr(tier, field)
        sides = [(f"{field}.with_lm", show(limits.with_lm)), (f"{field}.without_lm", show(limits.without_lm))]
        marks = {mark_of(tier, side) for side, text in sides if text != _DASH}
        if len(marks) == 1:
            return marked(" / ".join(text for _, text in sides), *marks)
        return " / ".join(self._marked(tier, side, text) for side, text in sides)

    def _marked(self, tier: Tier, field: str, text: str) -> str:
        return text if text == _DASH else marked(text, mark_of(tier, field))

    def _offload(self, tier: Tier) -> str:
        return self.words("none") if tier.offload is Offload.NONE else f"`{tier.offload}`"

    def _quantization(self, tier: Tier) -> str:
        return tier.quantization.upper() if tier.quantization else self.words("none")

    @property
    def small_backends(self) -> str:
        """The backends of a tier that may not use vLLM."""
        small = next((tier for tier in self.default.tiers if Backend.VLLM not in tier.backends_allowed), None)
        return "" if small is None else self.words.listed(f"`{backend}`" for backend in small.backends_allowed)


def _other_values(tier: Tier, own: Tier) -> Iterator[tuple[str, str, str]]:
    """Yield the fields that users see of a tier and that differ on another system, with both values."""
    for field in (*_SHOWN, "lm_models", "recommended_lm", "lm_quantization", "lm_songs_per_pass", "frontier"):
        both = tuple(msgspec.to_builtins(getattr(row, field)) for row in (tier, own))
        for path, (here, there) in _leaves(field, *both):
            if here != there:
                yield path, _as_cell(here), _as_cell(there)


def _leaves(path: str, here: Any, there: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if not isinstance(here, dict):
        yield path, (here, there)
        return
    for name in dict.fromkeys((*here, *there)):
        yield from _leaves(f"{path}.{name}", here.get(name), there.get(name))


def _as_cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def markdown_table(rows: Rows) -> str:
    """Return cells as a Markdown table; the first row is the heading."""
    heading, *body = rows
    lines = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
