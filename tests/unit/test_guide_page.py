"""The guide says what the table says, in every language, and nothing else has numbers in it."""

import re
import shlex
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path

import click
import msgspec
import pytest

from acestep.cli.main import cli as acestep
from acestep.dit import vae_decode
from acestep.errors import NotMeasuredError
from acestep.knobs import Variant
from acestep.locale_text import LANGUAGES
from acestep.request import MAX_LYRIC_TOKENS
from acestep.tiers import BATCHES, LmStates, Tier
from acestep.units import gib
from calibrate.cli import cli as calibrate
from calibrate.profiling.cli import cli as profiler
from calibrate.report.find_card import shown_cards
from calibrate.report.guide import DECODE_TILES
from calibrate.report.marks import MARKS, short
from calibrate.report.render import PAGE, Sources
from calibrate.report.words import words_of
from calibrate.table.policy import budget_bytes
from tests.guide_pages import EVERY, LM, NAMES, PLAIN, REAL, page, tiers_of
from tests.guides import POLICY, on_a_card, with_table, with_tiers

ROOT = Path(__file__).parents[2]

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.fixture(scope="module")
def rendered() -> dict[tuple[str, str], str]:
    return {(name, language): page(source, language) for name, source in EVERY.items() for language in LANGUAGES}


def known_numbers(source: Sources) -> set[str]:
    """Every number that a page may show, derived from its sources without the code that renders."""
    budget, sizes = POLICY.budget, POLICY.certified_sizes_gib
    contexts = [budget.context.of(size) for size in sizes]
    known = {f"{MAX_LYRIC_TOKENS:,}", "3", f"{min(contexts):g}", f"{max(contexts):g}"}
    known |= {f"{max(budget.shortfall.of(size) for size in sizes):.2g}", f"{budget.headroom.share * 100:g}"}
    known |= {f"{margin.share * 100:g}" for margin in map(POLICY.margin_of, sizes) if margin}
    known |= {str(tile) for tile in vae_decode.TILES} | {str(n) for n in range(1, 6)}
    for table in source.table.variants.values():
        for trade in table.trades:
            known |= set(NUMBER.findall(trade.sentence))
        for boundary in table.boundaries.named.values():
            known |= {str(boundary.fits_gib), str(boundary.fails_gib)}
        for tier in table.tiers:
            known |= set(NUMBER.findall(f"{tier.label} {tier.id} {' '.join(tier.lm_models)}"))
            known |= {str(tier.certified_gib), NUMBER.findall(gib(budget_bytes(tier.certified_gib, POLICY)))[0]}
            known |= {str(tier.max_batch.with_lm), str(tier.max_batch.without_lm), *tier.frontier.with_lm}
            known |= {str(songs) for songs in tier.lm_songs_per_pass.values()}
            for seconds in chain(tier.frontier.with_lm.values(), tier.frontier.without_lm.values()):
                known |= {str(seconds // 60), str(seconds % 60)}
    for short_of in source.table.shortfalls:
        known |= set(NUMBER.findall(f"{short_of.tier} {short_of.published} {short_of.generated}"))
    for real in shown_cards():
        known |= set(NUMBER.findall(real.label))
    for record in source.records:
        known |= set(NUMBER.findall(f"{record.environment.torch} {record.card.name} {len(record.probes)}"))
    return known


def bare_text(text: str, source: Sources) -> str:
    """A page without what is a name: digests, code versions, links, the names with digits in them."""
    for record in source.records:
        text = text.replace(record.digest, "").replace(short(record.digest), "").replace(record.code_version, "")
    return re.sub(r"\]\([^)]*\)", "]", NAMES.sub("", text.replace(source.table.generated_from.policy, "")))


@pytest.mark.parametrize("name", EVERY)
def test_every_number_on_a_page_comes_from_the_table(name: str, rendered: dict[tuple[str, str], str]) -> None:
    source = EVERY[name]
    known = known_numbers(source)
    for language in LANGUAGES:
        found = set(NUMBER.findall(bare_text(rendered[name, language], source)))
        assert found - known == set(), language
        assert len(found) > 20


def changed_tables(source: Sources) -> Iterator[tuple[str, Tier]]:
    """Each tier with one shown number lowered."""
    for tier in tiers_of(source):
        lowered = {batch: max(0, seconds - 7) for batch, seconds in tier.frontier.without_lm.items()}
        frontier = msgspec.structs.replace(tier.frontier, without_lm=lowered)
        yield (
            f"{tier.id} shorter",
            msgspec.structs.replace(
                tier,
                frontier=frontier,
                max_duration_s=LmStates(with_lm=tier.max_duration_s.with_lm, without_lm=lowered["1"]),
            ),
        )
        if tier.lm_songs_per_pass:
            yield f"{tier.id} passes", msgspec.structs.replace(tier, lm_songs_per_pass={"0.6B": 77})
        yield f"{tier.id} label", msgspec.structs.replace(tier, label="99-100GB")


def test_a_number_changed_in_the_table_changes_every_page(rendered: dict[tuple[str, str], str]) -> None:
    for (what, changed), language in zip(changed_tables(LM), cycle(LANGUAGES), strict=False):
        tiers = tuple(changed if tier.id == changed.id else tier for tier in tiers_of(LM))
        source = with_table(LM, with_tiers(LM.table, *tiers))
        assert page(source, language) != rendered["thinking", language], what


def test_every_row_of_a_measured_card_carries_its_record_s_digest(rendered: dict[tuple[str, str], str]) -> None:
    digest = short(on_a_card().digest)
    for language in LANGUAGES:
        rows = [line for line in rendered["measured", language].splitlines() if MARKS["measured"] in line]
        numbers = [line for line in rows if line.startswith("|")]
        assert len(numbers) > len(tiers_of(REAL))
        assert all(digest in line for line in numbers)
        assert on_a_card().digest in rendered["measured", language]


def test_a_page_without_a_measured_card_says_so(rendered: dict[tuple[str, str], str]) -> None:
    for language in LANGUAGES:
        nothing = words_of(language)("nothing_measured")
        assert nothing in rendered["plain", language]
        assert nothing not in rendered["measured", language]
        assert on_a_card().card.name in rendered["measured", language]


def test_every_row_has_the_marks_of_its_values_with_and_without_a_language_model(
    rendered: dict[tuple[str, str], str],
) -> None:
    text = rendered["thinking", "en"]
    row = next(line for line in text.splitlines() if line.startswith("| 24 GB and more |"))
    alone, planned = row.split("|")[-2].split(", ")
    assert alone.strip() == MARKS["simulated"]
    assert planned.split() == ["LM", MARKS["estimated"]]
    without = next(line for line in rendered["plain", "en"].splitlines() if line.startswith("| 24 GB and more |"))
    assert without.split("|")[-2].strip() == MARKS["simulated"]


def test_a_value_without_evidence_is_not_shown() -> None:
    first, *rest = tiers_of(PLAIN)
    bare = msgspec.structs.replace(first, evidence={})
    with pytest.raises(NotMeasuredError, match=first.id):
        page(with_table(PLAIN, with_tiers(PLAIN.table, bare, *rest)), "en")


def test_language_models_fill_their_columns_where_the_table_has_them(rendered: dict[tuple[str, str], str]) -> None:
    for language in LANGUAGES:
        words = words_of(language)
        plain, thinking_page = rendered["plain", language], rendered["thinking", language]
        for model in ("0.6B", "1.7B", "4B"):
            assert model not in plain
            assert model in thinking_page
        assert words("no_lm_yet") in plain
        assert words("no_lm_yet") not in thinking_page
        assert words("passes_intro") in thinking_page
        assert words("default_lm_model") in thinking_page
        assert f"`{Variant.XL_TURBO}`" in thinking_page
        assert words.duration(270) in thinking_page


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_covers_what_the_published_guide_covers(language: str, rendered: dict[tuple[str, str], str]) -> None:
    text = rendered["thinking", language]
    for covered in (
        *("MAX_CUDA_VRAM", "set_per_process_memory_fraction", "tier-test", "--tier-with-lm", "--tier-skip-compile"),
        *("--tier-boundary", "--tier-batch-boundary", "--benchmark-output", "BENCHMARK.md", "Flash Attention"),
        *("**default**", "**no-quant**", "**no-offload**", "gpu_config.py", "`pt`", "`vllm`", "`mlx`", "VAE", "LM"),
    ):
        assert covered in text, covered
    for tier in tiers_of(LM):
        assert tier.label in text
        assert f"MAX_CUDA_VRAM={tier.certified_gib} acestep" in text
        for batch, seconds in tier.frontier.with_lm.items():
            longer = {str(n) for n in BATCHES if n > int(batch) and tier.frontier.with_lm[str(n)] == seconds}
            if seconds and not longer:
                assert words_of(language).songs(int(batch), seconds) in text


COMMANDS: dict[str, click.Command] = {
    "acestep": acestep,
    "python -m calibrate": calibrate,
    "python profile_inference.py": profiler,
}


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_the_commands_of_a_page_exist_and_are_the_same_in_every_language(rendered: dict[tuple[str, str], str]) -> None:
    lines = [re.sub(r" *#.*", "", line) for line in shell_lines(rendered["thinking", "en"])]
    for language in LANGUAGES[1:]:
        assert [re.sub(r" *#.*", "", line) for line in shell_lines(rendered["thinking", language])] == lines
    for line in lines:
        words = shlex.split(re.sub(r"^MAX_CUDA_VRAM=\d+ ", "", line))
        name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
        command, rest = COMMANDS[name], words[len(name.split()) :]
        # Rules for contributed files come with the measuring side; until then there is nothing to hold this line to.
        if isinstance(command, click.Group) and rest and rest[0] != "validate":
            command = command.commands[rest[0]]
        flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        asked = {word for word in rest if word.startswith("-")}
        assert asked <= flags, line


@pytest.mark.parametrize("language", LANGUAGES)
def test_links_and_pictures_of_a_stored_page_lead_somewhere(language: str) -> None:
    stored = ROOT / "docs" / language / PAGE
    text = stored.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 8
    for target in targets:
        if target.startswith("#"):
            assert f'<a id="{target[1:]}"></a>' in text
        else:
            assert (stored.parent / target).exists(), target


def test_every_table_has_as_many_cells_in_each_row_as_in_its_heading(rendered: dict[tuple[str, str], str]) -> None:
    for text in rendered.values():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({line.count("|") for line in block.splitlines()}) == 1
        assert "None" not in text
        assert "\n\n\n" not in text


def test_decode_tiles_are_those_of_the_decoder() -> None:
    assert DECODE_TILES == vae_decode.TILES
