"""Tables about tiers in one language: their limits, and below them the longest songs, passes and boundaries. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from acestep.knobs import Backend, Offload, Variant
from acestep.tiers import BATCHES, LmNeeds, LmStates, SizeBoundary, Tier, VariantTable
from acestep.units import gib
from calibrate.report.marks import GAP, cited, mark_of, marked, sources_of
from calibrate.report.words import GuideText
from calibrate.table.policy import Policy, budget_bytes

DASH = "—"

Rows = Sequence[Sequence[str]]

_SHOWN = ("max_duration_s", "max_batch", "offload", "quantization")
_SHOWN_WITH_LM = ("lm_models", "max_duration_s.with_lm", "max_batch.with_lm")


def tier_rows(words: GuideText, tiers: Sequence[Tier]) -> Rows:
    """Return the limits of tiers in seven narrow columns, the last with the evidence of the others."""
    columns = ("vram", "tier", "lm", "duration", "batch", "offload", "evidence")
    return [tuple(words(f"col_{column}") for column in columns), *(_tier_row(words, tier) for tier in tiers)]


def _tier_row(words: GuideText, tier: Tier) -> tuple[str, ...]:
    return (
        words.range(tier.vram_gib),
        words.tier(tier),
        _lm_models(words, tier),
        _limits(tier.max_duration_s, words.duration),
        _limits(tier.max_batch, lambda batch: str(batch or DASH)),
        _kept(words, tier),
        _sources(tier),
    )


def _sources(tier: Tier) -> str:
    """Return the evidence of a row: that of songs without a language model, and that of planned songs if it differs."""
    alone = sources_of(tier, _SHOWN)
    planned = sources_of(tier, _SHOWN_WITH_LM) if tier.lm_models else alone
    return alone if planned == alone else f"{alone}, LM{GAP}{planned}"


def models_text(words: GuideText, models: Iterable[str], recommended: str | None) -> str:
    """Return language models with the recommended one in bold; a word for none."""
    return words.listed(f"**{model}**" if model == recommended else model for model in models) or words("none")


def _lm_models(words: GuideText, tier: Tier) -> str:
    if not tier.lm_models:
        return words("none")
    own = models_text(words, tier.own_lm_models, tier.recommended_lm) if tier.own_lm_models else ""
    weights = f" ({tier.lm_quantization.upper()})" if tier.lm_quantization and own else ""
    others = [f"{model} ({_needs(words, tier, needs)})" for model, needs in tier.lm_needs.items()]
    return words.listed(filter(None, [own + weights, *others]))


def _needs(words: GuideText, tier: Tier, needs: LmNeeds) -> str:
    """The knobs that a language model needs, those that are not the tier's own."""
    named = [f"`{needs.offload}`"] if needs.offload is not tier.offload else []
    if needs.lm_quantization is not tier.lm_quantization:
        named.append(needs.lm_quantization.upper() if needs.lm_quantization else words("tip_exact"))
    unable = [name for name in tier.backends_allowed if name not in (*needs.backends, Backend.MLX)]
    named += [f"`{name}`" for name in needs.backends] if unable else []
    return words.listed(named)


def _limits(limits: LmStates, show: Callable[[int], str]) -> str:
    """Return a limit with and without a language model, once where both are the same."""
    return " / ".join(dict.fromkeys((show(limits.with_lm), show(limits.without_lm))))


def _kept(words: GuideText, tier: Tier) -> str:
    """What leaves the card, and the format of the weights where it is not the exact one."""
    offload = words("none") if tier.offload is Offload.NONE else f"`{tier.offload}`"
    return offload if tier.quantization is None else words.listed([offload, tier.quantization.upper()])


def _marked(tier: Tier, field: str, text: str) -> str:
    return text if text == DASH else marked(text, mark_of(tier, field))


def steps_text(words: GuideText, entries: Mapping[str, int]) -> str:
    """Return how long songs may be: for each length, the largest batch that reaches it. A dash if none fits."""
    steps = [
        words.songs(batch, entries[str(batch)])
        for batch, larger in zip(BATCHES, (*BATCHES[1:], None), strict=True)
        if entries[str(batch)] and (larger is None or entries[str(larger)] != entries[str(batch)])
    ]
    return words.listed(steps) or DASH


def usual_songs(words: GuideText, tiers: Sequence[Tier]) -> str:
    """Return the longest songs that most tiers have, with a language model or without."""
    every = (steps_text(words, tier.frontier.of(lm=lm)) for lm in (False, True) for tier in tiers)
    counted = Counter(text for text in every if text != DASH)
    return max(counted, key=lambda text: counted[text], default=DASH)


def frontier_rows(words: GuideText, policy: Policy, tiers: Sequence[Tier]) -> Rows:
    """Return the budget of each tier and its longest songs, with a language model and without; usual ones are empty."""
    usual = usual_songs(words, tiers)
    columns = ("tier", "certified", "budget", "without_lm", "with_lm", "evidence")
    return [
        tuple(words(f"col_{column}") for column in columns),
        *(
            (
                words.tier(tier),
                f"{tier.certified_gib} GiB",
                gib(budget_bytes(tier.certified_gib, policy)),
                *(_unless(usual, words, tier, lm=lm) for lm in (False, True)),
                cited(tier, ("frontier.without_lm", "frontier.with_lm") if tier.own_lm_models else ("frontier",)),
            )
            for tier in tiers
        ),
    ]


def _unless(usual: str, words: GuideText, tier: Tier, *, lm: bool) -> str:
    field, text = "frontier.with_lm" if lm else "frontier.without_lm", steps_text(words, tier.frontier.of(lm=lm))
    return "" if text == usual else _marked(tier, field, text)


def passes_rows(words: GuideText, tiers: Sequence[Tier]) -> Rows:
    """Return how many songs each language model plans in one pass; empty if the table does not say."""
    models = list(dict.fromkeys(model for tier in tiers for model in tier.lm_songs_per_pass))
    if not models:
        return []
    cells = [
        (words.tier(tier), *(_passes(tier, model) for model in models), cited(tier, ("lm_songs_per_pass",)))
        for tier in tiers
        if tier.lm_songs_per_pass
    ]
    return [(words("col_tier"), *models, words("col_evidence")), *cells]


def _passes(tier: Tier, model: str) -> str:
    songs = tier.lm_songs_per_pass.get(model)
    return DASH if songs is None else _marked(tier, "lm_songs_per_pass", str(songs))


def boundary_rows(words: GuideText, table: VariantTable) -> Rows:
    """Return the certified sizes from which INT8 and offload can be off, and each language model fits."""
    named = [
        (words("without_int8"), table.boundaries.without_int8, "quantization"),
        (words("without_offload"), table.boundaries.without_offload, "offload"),
    ]
    for model, boundary in table.boundaries.lm.items():
        named.append((words("lm_boundary", model=model), boundary, "lm_models"))
    columns = ("col_question", "col_fits", "col_tier", "col_fails", "col_evidence")
    return [[words(column) for column in columns], *(_boundary_row(words, table, *row) for row in named)]


def _boundary_row(words: GuideText, table: VariantTable, name: str, found: SizeBoundary, field: str) -> tuple[str, ...]:
    # A boundary has no evidence of its own: it depends on the probes of the tier it names, on both sides.
    tier = next((tier for tier in table.tiers if tier.id == found.tier), table.tiers[-1])
    return (
        name,
        f"{found.fits_gib} GiB" if found.fits_gib else words("fits_nowhere"),
        words.tier(tier) if found.tier else DASH,
        f"{found.fails_gib} GiB" if found.fails_gib else words("fails_nowhere"),
        cited(tier, (field if field in tier.evidence else "frontier",)),
    )


def alike(words: GuideText, tables: Mapping[Variant, VariantTable]) -> list[tuple[Variant, ...]]:
    """Return the variants in groups whose tiers look the same on the page, in the order of the table."""
    groups: dict[str, list[Variant]] = {}
    for variant, table in tables.items():
        shown = [[tier_rows(words, table.tiers), _sizes(table)], [t.frontier for t in table.tiers]]
        groups.setdefault(repr((shown, [t.lm_songs_per_pass for t in table.tiers])), []).append(variant)
    return [tuple(group) for group in groups.values()]


def _sizes(table: VariantTable) -> list[tuple[str, int, int]]:
    return [(name, found.fits_gib, found.fails_gib) for name, found in table.boundaries.named.items()]
