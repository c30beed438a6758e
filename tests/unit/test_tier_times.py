"""The seconds in the table: who they are for, what they follow from, and when they are simulated again."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.cli.show import tiers_markdown
from acestep.cli.show_times import NO_USUAL_CARD
from acestep.evidence import Evidence, EvidenceKind
from acestep.knobs import Variant
from acestep.locale_text import LANGUAGES
from acestep.song_times import LENGTHS_S
from acestep.stage import Stage
from acestep.tiers import load_tiers
from calibrate.record.measurement import load_measurement
from calibrate.report.explorer.numbers import numbers
from calibrate.report.guide_times import tiers_without_times
from calibrate.report.real_cards import real_cards
from calibrate.report.words import words_of
from calibrate.table.merge import build_table
from calibrate.timing.cards import CardUse, known_cards
from calibrate.timing.tier_cards import made_from
from ci.findings import Level
from ci.judge_records import derivation_findings, stale_times
from ci.judge_table import table_findings
from ci.promises import stored_promises
from tests.fakes import measured
from tests.formula_card import POLICY
from tests.timed_table import timed

TABLE = build_table([measured()], POLICY)
TIERS_FOLDER = Path(__file__).parents[2] / "tiers"
TIMED, ASKED = timed(TABLE)


def test_every_tier_with_cards_of_known_speed_has_times_and_a_slower_card_takes_longer() -> None:
    entry = TIMED.variants[Variant.TURBO]
    listed = [card.vram_gib for card in known_cards() if card.use is not CardUse.ESTIMATE]
    sold = {tier.id for tier in entry.tiers if any(size in tier.vram_gib for size in listed)}
    assert entry.times.keys() == sold
    by_use = {card.name: card.use for card in known_cards()}
    for times in entry.times.values():
        assert times.evidence.kind is EvidenceKind.ESTIMATED
        assert {by_use[card.card] for card in times.cards} <= {CardUse.RANGE, CardUse.LINE}
        assert all(card.typical is (by_use[card.card] is CardUse.RANGE) for card in times.cards)
        for card in times.cards:
            assert all(short < long for short, long in (t.seconds for t in card.thinking))
            short, long = card.stages[Stage.DENOISE]
            assert short * LENGTHS_S[1] / LENGTHS_S[0] == pytest.approx(long, rel=0.05)
    by_name = {card.card: card for times in entry.times.values() for card in times.cards}
    assert by_name["RTX 3090"].stages[Stage.DENOISE] > by_name["RTX 4090"].stages[Stage.DENOISE]


def test_a_tier_without_times_is_one_that_no_card_is_in_and_the_pages_say_so() -> None:
    table = load_tiers(TIERS_FOLDER / "generated_tiers.json")
    for variant in table.variants.values():
        without = [tier for tier in variant.tiers if tier.id not in variant.times]
        assert not [real.label for real in real_cards() for tier in without if real.card.nameplate_gib in tier.vram_gib]
        for line, tier in zip(tiers_markdown(variant).splitlines()[2:], variant.tiers, strict=True):
            assert (NO_USUAL_CARD in line) == (tier in without)
        for language in LANGUAGES:
            words = words_of(language)
            told = tiers_without_times(variant, words)
            assert [tier for tier in variant.tiers if words.tier(tier) in told] == without


def test_times_are_kept_until_what_they_follow_from_changes() -> None:
    again, asked = timed(TABLE, TIMED)
    assert (again, asked) == (TIMED, 0)
    other = build_table([msgspec.structs.replace(measured(), code_version="1.2.3").sealed()], POLICY)
    _, asked = timed(other, TIMED)
    assert asked == ASKED


def test_each_card_has_its_size_and_those_of_an_older_table_get_it_without_being_simulated_again() -> None:
    sizes = {card.name: card.vram_gib for card in known_cards()}
    entry = TIMED.variants[Variant.TURBO]
    assert entry.times
    for times in entry.times.values():
        assert all(card.vram_gib == sizes[card.card] for card in times.cards)
    older = {
        tier: msgspec.structs.replace(
            times, cards=tuple(msgspec.structs.replace(card, vram_gib=None) for card in times.cards)
        )
        for tier, times in entry.times.items()
    }
    before = msgspec.structs.replace(
        TIMED, variants={**TIMED.variants, Variant.TURBO: msgspec.structs.replace(entry, times=older)}
    )
    assert timed(TABLE, before) == (TIMED, 0)


def test_a_card_of_the_explorer_has_times_of_its_size_only() -> None:
    by_label = {real.label: real.card for real in real_cards()}
    shown = numbers(TIMED)["variants"][Variant.TURBO]["times"]
    entry = TIMED.variants[Variant.TURBO]
    assert shown.keys() == entry.times.keys()
    assert any(listed["cards"] for cards in shown.values() for listed in cards)
    for tier, times in entry.times.items():
        for listed, card in zip(shown[tier], times.cards, strict=True):
            assert [by_label[label].nameplate_gib for label in listed["cards"]] in ([], [card.vram_gib]), card.card


def test_a_table_with_times_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "generated_tiers.json"
    path.write_bytes(msgspec.json.encode(TIMED))
    assert load_tiers(path) == TIMED
    assert TIMED.without_times() == TABLE


def test_the_gate_takes_times_where_the_base_has_none_and_warns_of_those_of_something_else() -> None:
    head = stored_promises(TIERS_FOLDER / "generated_tiers.json")
    assert list(table_findings(head.table.without_times(), head.table)) == []
    assert list(stale_times(head.table.without_times())) == []
    assert list(derivation_findings(head)) == []
    turbo = head.table.variants[Variant.TURBO]
    stale = {name: msgspec.structs.replace(times, made_from="sha256:0") for name, times in turbo.times.items()}
    variants = {**head.table.variants, Variant.TURBO: msgspec.structs.replace(turbo, times=stale)}
    found = list(stale_times(msgspec.structs.replace(head.table, variants=variants)))
    assert {(finding.id, finding.level) for finding in found} == {("G102", Level.WARNING)}
    assert len(found) == len(turbo.times) > 0
    lost = list(table_findings(head.table, head.table.without_times()))
    assert {(finding.id, finding.field) for finding in lost} == {("G511", "times")}


@pytest.mark.parametrize("kind", ["measured", "simulated"])
def test_the_gate_refuses_times_that_claim_more_than_an_estimate(kind: str) -> None:
    table = load_tiers(TIERS_FOLDER / "generated_tiers.json")
    turbo = table.variants[Variant.TURBO]
    claimed = msgspec.structs.replace(
        turbo.times["tier4"], evidence=Evidence(kind=EvidenceKind(kind), record=turbo.times["tier4"].evidence.record)
    )
    variants = {**table.variants, Variant.TURBO: msgspec.structs.replace(turbo, times={"tier4": claimed})}
    (found,) = stale_times(msgspec.structs.replace(table, variants=variants))
    assert (found.id, found.level) == ("G102", Level.ERROR)


@pytest.mark.parametrize(("variant", "same"), [("sft", "base"), ("xl-sft", "xl-base")])
def test_variants_that_are_simulated_once_have_the_same_work_in_their_records(variant: str, same: str) -> None:
    def work(name: str) -> dict[Any, Any]:
        record = load_measurement(TIERS_FOLDER / "measurements" / f"simulated-{name}.json")
        return {
            (msgspec.structs.replace(probe.knobs, variant=Variant.TURBO), probe.workload, probe.cap_bytes): [
                stage.work for stage in probe.stages
            ]
            for probe in record.probes
        }

    mine, other = work(variant), work(same)
    shared = mine.keys() & other.keys()
    assert len(shared) > 50
    assert all(mine[key] == other[key] for key in shared)


def test_times_of_a_tier_that_is_not_there_are_refused() -> None:
    turbo = TIMED.variants[Variant.TURBO]
    with pytest.raises(ValueError, match="no tiers"):
        msgspec.structs.replace(turbo, times={"tier99": next(iter(turbo.times.values()))})


def test_the_digest_follows_the_variant_and_the_tier() -> None:
    tiers = TABLE.variants[Variant.TURBO].tiers
    assert len({made_from(TABLE, Variant.TURBO, tier) for tier in tiers}) == len(tiers)
