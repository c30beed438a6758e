"""The tier table is read strictly: whatever is wrong with it is said with the file and the field."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.catalog import CHECKPOINTS, CheckpointKind
from acestep.errors import InvalidInputError
from acestep.evidence import EvidenceKind, short_digest
from acestep.knobs import LM_MODELS, Variant
from acestep.tiers import BATCHES, Frontier, Tier, lm_rank, load_tiers

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tiers.json"
TEXT = FIXTURE.read_text(encoding="utf-8")
DOCUMENT = json.loads(TEXT)
TIERS = load_tiers(FIXTURE).variants[Variant.TURBO]


def test_what_is_read_is_what_was_written() -> None:
    assert json.loads(msgspec.json.encode(load_tiers(FIXTURE))) == DOCUMENT


@given(st.floats(0, 1e6))
def test_every_size_is_in_exactly_one_tier(size: float) -> None:
    holders = [tier for tier in TIERS.tiers if size in tier.vram_gib]
    assert len(holders) == 1


@given(st.integers(1, 8), st.booleans(), st.sampled_from(TIERS.tiers))
def test_a_batch_between_two_takes_the_larger_ones_entry(batch: int, lm: bool, tier: Any) -> None:
    entry = min(size for size in BATCHES if size >= batch)
    assert tier.frontier.longest(batch, lm=lm) == tier.frontier.of(lm=lm)[str(entry)]


def test_no_batch_above_the_largest_entry_fits() -> None:
    assert all(tier.frontier.longest(9, lm=False) == 0 for tier in TIERS.tiers)


def test_the_language_models_are_those_of_the_catalog() -> None:
    assert tuple(model.short for model in CHECKPOINTS if model.kind is CheckpointKind.LM) == LM_MODELS


def test_a_larger_language_model_ranks_higher_and_none_lowest() -> None:
    assert sorted((*reversed(LM_MODELS), None), key=lm_rank) == [None, *LM_MODELS]


def test_evidence_ranks_as_the_design_says() -> None:
    assert list(EvidenceKind) == ["measured", "virtual", "simulated", "estimated", "policy"]


def test_the_start_of_a_digest_names_its_algorithm_and_nothing_stays_nothing() -> None:
    assert short_digest("sha256:0123456789abcdef") == "sha256:0123456789ab"
    assert short_digest("") == ""


def tier(index: int) -> Callable[[Any], Any]:
    return lambda document: document["variants"]["turbo"]["tiers"][index]


def boundaries(document: Any) -> Any:
    return document["variants"]["turbo"]["boundaries"]


NEEDS: dict[str, Any] = {
    "offload": "cpu+dit",
    "quantization": None,
    "lm_quantization": None,
    "backends": ["pt"],
    "with_lm": {"1": 600, "2": 600, "4": 600, "8": 300},
}
"""What a language model needs that does not fit beside its tier's own knobs."""

DAMAGES: list[tuple[str, Callable[[Any], Any], dict[str, Any], str]] = [
    ("newer schema", lambda d: d, {"schema_version": 2}, "schema_version is 2"),
    ("schema of a wrong type", lambda d: d, {"schema_version": "1"}, "schema_version"),
    ("schema zero", lambda d: d, {"schema_version": 0}, "schema_version"),
    ("unknown field", lambda d: d, {"surprise": 1}, "surprise"),
    ("unknown tier field", tier(0), {"surprise": 1}, "surprise"),
    ("unknown variant", lambda d: d["variants"], {"mega": {}}, "variants"),
    ("wrong type", tier(2), {"certified_gib": "7"}, "certified_gib"),
    ("unknown offload", tier(2), {"offload": "moon"}, "offload"),
    ("certified outside the range", tier(2), {"certified_gib": 12}, "certified_gib"),
    ("negative limit", tier(2), {"max_duration_s": {"with_lm": 480, "without_lm": -1}}, "without_lm"),
    ("headline above the frontier", tier(2), {"max_duration_s": {"with_lm": 480, "without_lm": 601}}, "max_duration_s"),
    ("headline batch above the frontier", tier(2), {"max_batch": {"with_lm": 1, "without_lm": 8}}, "max_batch"),
    ("song above the longest", lambda d: tier(7)(d)["frontier"]["with_lm"], {"1": 601}, "frontier.with_lm"),
    ("batch above the largest", tier(7), {"max_batch": {"with_lm": 8, "without_lm": 16}}, "max_batch"),
    ("certified at nothing", tier(0), {"certified_gib": 0}, "certified_gib"),
    ("pass of a model not offered", tier(2), {"lm_songs_per_pass": {"4B": 1}}, "lm_songs_per_pass"),
    ("pass of no song", tier(2), {"lm_songs_per_pass": {"0.6B": 0}}, "lm_songs_per_pass"),
    ("negative boundary", lambda d: boundaries(d)["without_int8"], {"fits_gib": -1}, "without_int8.fits_gib"),
    ("negative failure", lambda d: boundaries(d)["without_offload"], {"fails_gib": -1}, "without_offload.fails_gib"),
    ("negative model boundary", lambda d: boundaries(d)["lm"]["4B"], {"fits_gib": -1}, "fits_gib"),
    ("boundary in no tier", lambda d: boundaries(d)["without_int8"], {"tier": "tier9"}, "without_int8.tier"),
    ("model boundary in no tier", lambda d: boundaries(d)["lm"]["4B"], {"tier": "tier9"}, "lm.4B.tier"),
    ("missing frontier entry", lambda d: tier(0)(d)["frontier"], {"with_lm": {"1": 0}}, "frontier"),
    (
        "extra frontier entry",
        lambda d: tier(0)(d)["frontier"]["with_lm"],
        {"16": 0},
        "frontier",
    ),
    ("frontier that rises", lambda d: tier(0)(d)["frontier"]["without_lm"], {"8": 500}, "frontier"),
    ("backend it does not allow", tier(0), {"backend": "vllm"}, "backend"),
    ("unknown language model", tier(4), {"lm_models": ["0.6B", "9B"]}, "lm_models"),
    ("language models out of order", tier(4), {"lm_models": ["1.7B", "0.6B"]}, "lm_models"),
    ("recommended but not offered", tier(4), {"recommended_lm": "4B"}, "recommended_lm"),
    ("offered but not recommended", tier(4), {"recommended_lm": None}, "recommended_lm"),
    ("offered but not certified", tier(0), {"lm_models": ["0.6B"], "recommended_lm": "0.6B"}, "with_lm"),
    ("needs of a model not offered", tier(4), {"lm_needs": {"4B": NEEDS}}, "lm_needs"),
    ("recommended beside other knobs", tier(4), {"lm_needs": {"1.7B": NEEDS}}, "recommended_lm"),
    ("needs without a batch", tier(4), {"lm_needs": {"0.6B": NEEDS | {"with_lm": {"1": 600}}}}, "lm_needs.0.6B"),
    ("needs without a backend", tier(4), {"lm_needs": {"0.6B": NEEDS | {"backends": []}}}, "lm_needs"),
    ("evidence of nothing", tier(0), {"evidence": {"mood": {"kind": "measured", "record": ""}}}, "mood"),
    ("hearsay", lambda d: tier(0)(d)["evidence"]["frontier"], {"kind": "hearsay"}, "evidence"),
    ("gap between tiers", lambda d: tier(1)(d)["vram_gib"], {"lower": 4.5}, "tier2"),
    ("overlap of tiers", lambda d: tier(1)(d)["vram_gib"], {"lower_inclusive": True}, "tier2"),
    ("tiers that end", lambda d: tier(7)(d)["vram_gib"], {"upper": 99, "upper_inclusive": True}, "upper"),
    ("tiers that begin late", lambda d: tier(0)(d)["vram_gib"], {"lower": 1}, "begin at 0"),
    ("upside-down range", lambda d: tier(1)(d)["vram_gib"], {"upper": 3}, "upper"),
    ("half an end", lambda d: tier(7)(d)["vram_gib"], {"upper": 99}, "upper"),
    ("two tiers of one name", tier(1), {"id": "tier1"}, "tier1"),
    ("no tiers", lambda d: d["variants"]["turbo"], {"tiers": []}, "tiers"),
    ("no default variant", lambda d: d, {"variants": {}}, "turbo"),
]


def written(folder: Path, text: str) -> Path:
    path = folder / "damaged.json"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, part: Callable[[Any], Any], change: dict[str, Any]) -> str:
    """What is said about the document with a changed part."""
    document = copy.deepcopy(DOCUMENT)
    part(document).update(change)
    with pytest.raises(InvalidInputError, match=r"damaged\.json") as caught:
        load_tiers(written(folder, json.dumps(document)))
    return str(caught.value)


@pytest.mark.parametrize(("part", "change", "field"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_a_damaged_table_is_refused_with_its_file_and_field(
    tmp_path: Path, part: Callable[[Any], Any], change: dict[str, Any], field: str
) -> None:
    said = refusal(tmp_path, part, change)
    assert field in said


@given(st.integers(0, len(TEXT.rstrip()) - 1))
def test_a_table_cut_short_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    with pytest.raises(InvalidInputError, match=r"damaged\.json"):
        load_tiers(written(tmp_path_factory.getbasetemp(), TEXT[:length]))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "[" * 100_000,
        TEXT.replace('"context_bytes": 540000000.0', '"context_bytes": NaN'),
        TEXT.replace('"context_bytes": 540000000.0', '"context_bytes": 1e999'),
        TEXT.replace('"table_version": 7', '"table_version": 7, "table_version": 8'),
    ],
    ids=["a list", "null", "endless nesting", "NaN", "infinite", "a key twice"],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    assert text != TEXT
    with pytest.raises(InvalidInputError, match=r"damaged\.json"):
        load_tiers(written(tmp_path, text))


@pytest.mark.parametrize(
    ("part", "change", "where"),
    [
        (tier(2), {"label": "half \ud800"}, "tiers[2].label"),
        (tier(0), {"lm_models": ["\udfff"]}, "tiers[0].lm_models[0]"),
        (tier(1), {"name \udc00": 1}, r"tiers[1].name \udc00"),
    ],
    ids=["a text", "a list", "a name"],
)
def test_half_a_character_is_refused_where_it_is(
    tmp_path: Path, part: Callable[[Any], Any], change: dict[str, Any], where: str
) -> None:
    said = refusal(tmp_path, part, change)
    assert where in said
    assert said.encode(), "the refusal itself can be shown"


def test_a_whole_character_that_is_escaped_in_halves_is_read(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    tier(2)(document)["label"] = "\N{MUSICAL SYMBOL G CLEF}"
    text = json.dumps(document)
    assert r"\ud834\udd1e" in text
    assert load_tiers(written(tmp_path, text)).variants[Variant.TURBO].tiers[2].label == "\N{MUSICAL SYMBOL G CLEF}"


def test_bytes_that_are_no_text_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InvalidInputError, match=r"damaged\.json"):
        load_tiers(path)
    with pytest.raises(InvalidInputError, match="no such file"):
        load_tiers(tmp_path / "absent.json")


@given(st.lists(st.integers(0, 600), min_size=4, max_size=4))
def test_a_headline_batch_reaches_the_longest_song_and_the_next_size_does_not(seconds: list[int]) -> None:
    entries = {str(batch): s for batch, s in zip(BATCHES, sorted(seconds, reverse=True), strict=True)}
    frontier = Frontier(with_lm=entries, without_lm=entries)
    batch = frontier.headline_batch(lm=True)
    longest = frontier.longest(1, lm=True)
    assert (batch == 0) == (longest == 0)
    if batch:
        assert frontier.longest(batch, lm=True) == longest > frontier.longest(batch + 1, lm=True)


def test_a_model_with_needs_of_its_own_brings_its_knobs_and_limits() -> None:
    row = msgspec.convert(DOCUMENT["variants"]["turbo"]["tiers"][4] | {"lm_needs": {"0.6B": NEEDS}}, Tier)
    assert row.own_lm_models == ("1.7B",)
    assert row.thinking_with("1.7B") is row
    assert row.thinking_with(None) is row
    able = row.thinking_with("0.6B")
    assert (able.offload, able.recommended_lm, able.lm_needs) == ("cpu+dit", "0.6B", {})
    assert (able.backend, able.max_batch.with_lm, able.frontier.with_lm["8"]) == ("pt", 4, 300)
    assert able.frontier.without_lm == row.frontier.without_lm
