"""The rendered files: the guide in every language, its plots and the explorer, from the table, policy and records."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from acestep.errors import InvalidInputError, UsageError
from acestep.knobs import Backend, Offload, Variant
from acestep.locale_text import LANGUAGES
from acestep.output_file import output_file
from acestep.tiers import TierTable, load_tiers
from calibrate.record.measurement import Measurement, load_measurement
from calibrate.report.explorer.page import explorer_page
from calibrate.report.guide import Guide, markdown_table
from calibrate.report.guide_times import guide_time_rows, tiers_without_times
from calibrate.report.plots import plots, same_drawing
from calibrate.report.template import template
from calibrate.report.words import GuideText, words_of
from calibrate.table.policy import Policy, load_policy

PAGE = "GPU_COMPATIBILITY.md"
EXPLORER = "docs/explorer.html"
PLOTS = "docs/plots"
PLOT_KINDS = ("vram", "stages", "agreement")

Files = Mapping[str, str]
"""Texts by their path below the checkout, with forward slashes."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The sources of pages; `files` has the path below the checkout of each record, by its digest."""

    table: TierTable
    policy: Policy
    records: tuple[Measurement, ...]
    files: dict[str, str]


def read_sources(checkout: Path) -> Sources:
    """Return the table, policy and records of a checkout; raise `UsageError` if it is not one."""
    tiers = checkout / "tiers"
    if not (tiers / "policy.json").is_file():
        raise UsageError(f"{checkout} has no tiers/policy.json: rendering needs a checkout, so run it in one")
    paths = sorted((tiers / "measurements").glob("*.json"))
    records = tuple(load_measurement(path) for path in paths)
    table = load_tiers(tiers / "generated_tiers.json")
    if lost := sorted(set(table.generated_from.records) - {record.digest for record in records}):
        raise InvalidInputError(
            tiers / "generated_tiers.json", f"was made from {lost[0]}, which is not in tiers/measurements; merge again"
        )
    return Sources(
        table=table,
        policy=load_policy(tiers / "policy.json"),
        records=records,
        files={r.digest: p.relative_to(checkout).as_posix() for r, p in zip(records, paths, strict=True)},
    )


def render(sources: Sources) -> Files:
    """Every rendered file. The same sources give the same texts."""
    drawn = {f"{PLOTS}/{name}": text for name, text in plots(sources.table, sources.policy, sources.records).items()}
    names = frozenset(PurePosixPath(path).name for path in drawn)
    pages = {f"docs/{language}/{PAGE}": guide_page(sources, words_of(language), names) for language in LANGUAGES}
    return pages | {EXPLORER: explorer_page(sources.table)} | drawn


def guide_page(sources: Sources, words: GuideText, drawn: frozenset[str]) -> str:
    """Return the guide in one language, with the plots that were `drawn`."""
    guide = Guide(words=words, table=sources.table, policy=sources.policy, records=sources.records)
    tiers = guide.default.tiers
    return template("guide.md.j2").render(
        t=words,
        guide=guide,
        facts=guide.facts,
        rows=markdown_table,
        pictures=_pictures(guide, drawn),
        names=_names,
        named=lambda variants: words.listed(f"`{variant}`" for variant in variants),
        language_links=_language_links(words),
        defaults=_defaults(guide),
        time_rows=guide_time_rows(guide.default, words),
        without_times=tiers_without_times(guide.default, words),
        has_lm=any(tier.lm_models for tier in tiers),
        has_lm_needs=any(tier.lm_needs for table in guide.table.variants.values() for tier in table.tiers),
        has_lm_quantization=any(tier.lm_quantization for tier in tiers),
        some_sizes=" ".join(str(tier.certified_gib) for tier in tiers[3:]),
    )


def _names(variants: Iterable[Variant]) -> list[str]:
    return [variant.value for variant in variants]


def _pictures(guide: Guide, drawn: frozenset[str]) -> str:
    """Return the plots of one variant of each group, and links to those of the others."""
    words, shown, others = guide.words, list[str](), list[str]()
    for first, *rest in guide.groups:
        for kind in (kind for kind in PLOT_KINDS if f"{kind}-{first}.svg" in drawn):
            shown.append(f"![{words(f'plot_{kind}_alt', variant=first)}](../plots/{kind}-{first}.svg)")
            shown.append(words(f"plot_{kind}_caption", variant=first))
        others += [
            f"[{words(f'plot_{kind}_alt', variant=variant)}](../plots/{kind}-{variant}.svg)"
            for variant in rest
            for kind in PLOT_KINDS
            if f"{kind}-{variant}.svg" in drawn
        ]
    return "\n\n".join([*shown, words("pictures_others", links=words.listed(others))] if others else shown)


def _language_links(words: GuideText) -> str:
    names = {language: words_of(language)("language") for language in LANGUAGES}
    return " · ".join(
        f"**{name}**" if language == words.language else f"[{name}](../{language}/{PAGE})"
        for language, name in names.items()
    )


def _defaults(guide: Guide) -> list[tuple[str, str]]:
    """Return what the web page preselects: a locale key, and its tiers."""
    return [
        ("default_lm_on", guide.named(lambda tier: tier.lm_models and tier.init_lm)),
        ("default_lm_offered", guide.named(lambda tier: tier.lm_models and not tier.init_lm)),
        ("default_lm_none", guide.named(lambda tier: not tier.lm_models)),
        ("default_pt", guide.named(lambda tier: Backend.VLLM not in tier.backends_allowed)),
        ("default_vllm", guide.named(lambda tier: Backend.VLLM in tier.backends_allowed)),
        ("default_offload_on", guide.named(lambda tier: tier.offload is not Offload.NONE)),
        ("default_offload_off", guide.named(lambda tier: tier.offload is Offload.NONE)),
        ("default_int8_on", guide.named(lambda tier: tier.quantization is not None)),
        ("default_int8_off", guide.named(lambda tier: tier.quantization is None)),
        ("default_compile", guide.named(lambda tier: tier.compile)),
    ]


def stale(checkout: Path, files: Files) -> list[str]:
    """Return the paths whose file on disk is missing, differs, or is no longer rendered."""
    wrong = [path for path, text in files.items() if not _same(checkout / path, text)]
    return sorted([*wrong, *_leftovers(checkout, files)])


def write_files(checkout: Path, files: Files) -> None:
    """Write the rendered files to a checkout, and remove plots that are no longer drawn."""
    for path, text in files.items():
        target = checkout / path
        if _same(target, text):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with output_file(target) as put:
            put(text)
    for path in _leftovers(checkout, files):
        (checkout / path).unlink()


def _leftovers(checkout: Path, files: Files) -> Iterable[str]:
    drawn = sorted((checkout / PLOTS).glob("*.svg"))
    return [path for plot in drawn if (path := f"{PLOTS}/{plot.name}") not in files]


def _same(target: Path, text: str) -> bool:
    try:
        there = target.read_bytes().decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return there == text or (target.suffix == ".svg" and same_drawing(there, text))
