"""The guide's texts about a table, in one language: rows of cells and lists of tiers. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.knobs import Backend, Variant
from acestep.request import MAX_LYRIC_TOKENS
from acestep.tiers import BATCHES, Tier, TierTable, VariantTable
from calibrate.record.measurement import Measurement
from calibrate.report.find_card import card_rows
from calibrate.report.marks import GAP, MARKS, short
from calibrate.report.tier_rows import Rows, alike, boundary_rows, frontier_rows, passes_rows, tier_rows, usual_songs
from calibrate.report.windows_rows import windows_rows
from calibrate.report.words import GuideText
from calibrate.table.knobs import Config
from calibrate.table.policy import Policy

DECODE_TILES = (64, 128, 256, 512, 1024, 1536)
"""Latent frames of a decode tile (`acestep.dit.vae_decode.TILES`, which needs torch; a test)."""

_TIPS = ((0, "tip_smallest"), (6, "tip_small"), (8, "tip_middle"), (16, "tip_large"), (24, "tip_largest"))
"""The certified size in GiB from which each advice is given: the groups of the published guide."""

_EXAMPLE_S = 300
"""The length in the example of how songs are written, in seconds."""


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

    @property
    def groups(self) -> list[tuple[Variant, ...]]:
        """The variants in groups with equal limits."""
        return alike(self.words, self.table.variants)

    def tier_rows(self, variant: Variant) -> Rows:
        """Return the limits of a variant, tier by tier."""
        return tier_rows(self.words, self.table.variants[variant].tiers)

    def usual_songs(self, variant: Variant) -> str:
        """Return the longest songs that most tiers of a variant have."""
        return usual_songs(self.words, self.table.variants[variant].tiers)

    def frontier_rows(self, variant: Variant) -> Rows:
        """Return the budgets of a variant's tiers and their longest songs."""
        return frontier_rows(self.words, self.policy, self.table.variants[variant].tiers)

    def passes_rows(self, variant: Variant) -> Rows:
        """Return how many songs are planned in one pass; empty if the table does not say."""
        return passes_rows(self.words, self.table.variants[variant].tiers)

    def boundary_rows(self, variant: Variant) -> Rows:
        """Return the certified sizes from which INT8 and offload can be off, and each language model fits."""
        return boundary_rows(self.words, self.table.variants[variant])

    def card_rows(self) -> Rows:
        """Return what cards that people own may do with the default variant."""
        return card_rows(self.words, self.table)

    def shortfall_rows(self) -> Rows:
        """Return the cells in which the published guide promises more; empty if there are none."""
        short = self.table.shortfalls
        heading = tuple(self.words(f"col_{column}") for column in ("tier", "value", "published", "here"))
        cells = [tuple(f"`{text}`" for text in (s.tier, s.field, s.published, s.generated)) for s in short]
        return [heading, *cells] if cells else []

    @property
    def trades(self) -> list[str]:
        """Where a larger card gets less of something: sentences of the table, after the variants that they are of."""
        of: dict[str, list[str]] = {}
        for variant, table in self.table.variants.items():
            for trade in table.trades:
                where = " (Windows)" if trade.system is System.WINDOWS else ""
                of.setdefault(f"{where}: {trade.sentence}", []).append(f"`{variant}`")
        return [f"{self.words.listed(variants)}{sentence}" for sentence, variants in of.items()]

    def windows_rows(self) -> Rows:
        """Return what is promised otherwise on Windows; empty if it is the same there."""
        return windows_rows(self.words, self.table)

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
                labels = self.words.listed(self.words.range(tier.vram_gib) for tier in group)
                found.append(f"{self.words(key, labels=labels)} {self._here(group)}")
        return found

    def _here(self, tiers: Sequence[Tier]) -> str:
        offload = _distinct(f"`{tier.offload}`" for tier in tiers)
        weights = _distinct(map(self._quantization, tiers))
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
            "labels": self.words.listed(tier.label for tier in self.default.tiers),
            "lyrics": f"{MAX_LYRIC_TOKENS:,}",
            "tiles": self.words.listed(map(str, DECODE_TILES)),
            "batches": self.words.listed(map(str, BATCHES)),
            "count": len(Config),
            "variant": Variant.TURBO.value,
            "example": self.words.songs(BATCHES[-1], _EXAMPLE_S),
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

    def _quantization(self, tier: Tier) -> str:
        return tier.quantization.upper() if tier.quantization else self.words("tip_exact")

    @property
    def small_backends(self) -> str:
        """The backends of a tier that may not use vLLM."""
        small = next((tier for tier in self.default.tiers if Backend.VLLM not in tier.backends_allowed), None)
        return "" if small is None else self.words.listed(f"`{backend}`" for backend in small.backends_allowed)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def markdown_table(rows: Rows) -> str:
    """Return cells as a Markdown table; the first row is the heading."""
    heading, *body = rows
    lines = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
