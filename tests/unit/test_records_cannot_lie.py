"""No record raises a promise alone: what it says is possible, and the simulation or a second card agrees."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import NotMeasuredError
from acestep.evidence import EvidenceKind
from acestep.knobs import Knobs, Variant
from acestep.tiers import TierTable
from acestep.units import MIB
from calibrate.campaign.physics import physics, refitted
from calibrate.files import pretty_json
from calibrate.record.measurement import Measurement, RecordedProbe, load_measurement
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from calibrate.table.waivers import RECORD, Waiver
from tests.damage import Document, sealed
from tests.damage_of_meaning import on_card
from tests.fakes import AnalyticProber, measured
from tests.lies import CARDS, HONEST, accepted, lied, raised

POLICY = load_policy()
OTHER = ("NVIDIA A100-SXM4-80GB", "8.0", 79.25)
TABLE = build_table([HONEST], POLICY)
REFUSED = (*range(4), 9, 11)
ACCEPTED = (10, 12, 15, 18, 19)
"""Lies that no rule refuses, so that only the choice of the deciding record stands between them and the table.

`make soak` tries 2,000.
"""


class Frugal(AnalyticProber):
    """A card that needs less than the simulation says."""

    def __init__(self, less: int) -> None:
        super().__init__()
        self.less = less

    def resting_bytes(self, *asked: Any) -> int:
        return super().resting_bytes(*asked) - self.less


class Uneven(Frugal):
    """A card that needs less where a language model thinks, and as much more where none does."""

    def resting_bytes(self, knobs: Knobs) -> int:
        return AnalyticProber.resting_bytes(self, knobs) - (self.less if knobs.lm else -self.less)


def of_card(record: Measurement, card: tuple[str, str, float], folder: Path) -> Measurement:
    """A record as one of a real card."""
    document: Document = json.loads(pretty_json(record))
    on_card(*card)(document)
    path = folder / "card.json"
    path.write_bytes(sealed(document))
    return load_measurement(path)


def tables(*records: Measurement) -> TierTable:
    return build_table([HONEST, *records], POLICY)


def raised_by(*records: Measurement | None) -> list[str]:
    """What records raise together; nothing where one was refused, or where they make no table."""
    taken = [record for record in records if record is not None]
    try:
        return raised(TABLE, tables(*taken)) if len(taken) == len(records) else []
    except NotMeasuredError:
        return []


def test_an_honest_record_of_a_real_card_decides(tmp_path: Path) -> None:
    document: Document = json.loads(pretty_json(HONEST))
    on_card(*CARDS[0])(document)
    record = accepted(document, tmp_path)
    assert record is not None
    kinds = {tier.evidence["frontier"].kind for tier in tables(record).variants["turbo"].tiers}  # type: ignore[index]
    assert kinds == {EvidenceKind.MEASURED}


@pytest.mark.parametrize("seed", REFUSED)
def test_most_lies_are_refused(seed: int, tmp_path: Path) -> None:
    assert accepted(lied(seed), tmp_path) is None


@pytest.mark.parametrize("seed", ACCEPTED)
def test_no_lie_raises_a_promise_alone_or_beside_an_honest_card(seed: int, tmp_path: Path) -> None:
    record = accepted(lied(seed), tmp_path)
    assert record is not None, "the lie is refused; choose a seed whose lie is accepted"
    assert raised_by(record) == []
    assert raised_by(record, of_card(HONEST, OTHER, tmp_path)) == []


def test_one_card_that_needs_less_raises_nothing_and_two_do(tmp_path: Path) -> None:
    better = measured(Frugal(900 * MIB))
    one, other = (of_card(better, card, tmp_path) for card in CARDS[:2])
    assert raised(TABLE, tables(one)) == []
    unknown = of_card(better, CARDS[2], tmp_path)
    assert raised(TABLE, tables(one, unknown)) == []
    assert raised(TABLE, tables(one, other))


def entry(record: Measurement, **changes: str) -> Waiver:
    """A maintainer's entry for a record."""
    usual = {"variant": "turbo", "tier": "tier2", "field": RECORD, "value": record.digest, "until": "2030-01-01"}
    return msgspec.convert(usual | {"why": "@maintainer saw the card and its log."} | changes, Waiver)


def test_one_card_raises_the_tier_for_which_a_maintainer_answers_and_no_other(tmp_path: Path) -> None:
    one = of_card(measured(Frugal(900 * MIB)), CARDS[0], tmp_path)

    def raised_with(waiver: Waiver) -> list[str]:
        return raised(TABLE, build_table([HONEST, one], POLICY, [waiver]))

    together = raised(TABLE, tables(one, of_card(measured(Frugal(900 * MIB)), CARDS[1], tmp_path)))
    assert len(together) > 1
    assert raised_with(entry(one)) == [sentence for sentence in together if sentence.startswith("tier2:")]
    for other in (entry(HONEST), entry(one, variant="base"), entry(one, field="offload")):
        assert raised_with(other) == []
    with pytest.raises(msgspec.ValidationError, match="name the maintainer"):
        entry(one, why="A person saw the card.")


def with_coefficients(document: Document, *values: float) -> Document:
    named = [{"variant": "turbo", "name": f"c{number}", "value": value} for number, value in enumerate(values)]
    return document | {"memory_model": named}


class Fitting(AnalyticProber):
    """A simulation that fits two coefficients."""

    def memory_model(self, variant: Variant) -> dict[str, float]:
        return {"c0": 1_000.0, "c1": 0.0}


@pytest.mark.parametrize(
    ("values", "simulated", "on_a_card"),
    [
        ((1_000.0, 0.0), [], []),
        ((1_005.0, 0.0), ["V206"], []),
        ((900.0, 0.0), ["V206"], ["V206"]),
        ((1_000.0, 1.0), ["V206"], ["V206"]),
        ((1_000.0,), ["V206"], ["V206"]),
        ((1_000.0, 0.0, 7.0), ["V206"], ["V206"]),
        ((), [], []),
    ],
)
def test_the_coefficients_of_the_guard_are_those_of_the_fit(
    values: tuple[float, ...], simulated: list[str], on_a_card: list[str]
) -> None:
    for wanted, card, exact in ((simulated, False, True), (on_a_card, False, False), (on_a_card, True, False)):
        document: Document = with_coefficients(json.loads(pretty_json(HONEST)), *values)
        if card:
            on_card(*CARDS[0])(document)
        record = msgspec.convert(document, Measurement)
        assert [broken.rule.id for broken in refitted(record, Fitting(), lambda _: None, exact=exact)] == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"driver": "590.10"},
        {"total_bytes": int(79.2 * 1024) * MIB - MIB},
        {"name": "NVIDIA H100 80GB HBM3 "},
        {"name": "NVIDIA H100 PCIe"},
        {"name": "H100 SXM5 80 GB"},
        {"compute_capability": "9.00"},
    ],
)
def test_another_record_of_a_model_is_no_second_card(changes: dict[str, Any], tmp_path: Path) -> None:
    one = of_card(measured(Frugal(900 * MIB)), CARDS[1], tmp_path)
    card = msgspec.structs.replace(one.card, **changes)
    again = msgspec.structs.replace(one, card=card, code_version="0.0.1+tree.0123456789abcdef").sealed()
    assert raised(TABLE, tables(one, again)) == []


@pytest.mark.parametrize("second", [Frugal(0), Frugal(-900 * MIB)], ids=["as simulated", "needs more"])
@pytest.mark.parametrize(
    "first", [Frugal(900 * MIB), Uneven(900 * MIB), Uneven(300 * MIB)], ids=["less", "far", "near"]
)
def test_a_second_card_that_does_not_promise_as_much_raises_nothing(
    first: Frugal, second: Frugal, tmp_path: Path
) -> None:
    liar, witness = (of_card(measured(by), card, tmp_path) for by, card in ((first, CARDS[0]), (second, CARDS[1])))
    assert raised_by(liar, witness) == []
    assert raised_by(liar, witness, of_card(HONEST, OTHER, tmp_path)) == []


def test_two_cards_raise_what_both_promise(tmp_path: Path) -> None:
    both = [
        of_card(measured(Frugal(less * MIB)), card, tmp_path) for less, card in zip((600, 900), CARDS, strict=False)
    ]
    careful = tables(both[0], of_card(measured(Frugal(600 * MIB)), CARDS[1], tmp_path))
    assert raised(TABLE, tables(*both))
    assert raised(careful, tables(*both)) == []


@pytest.mark.parametrize("card", CARDS)
def test_one_card_that_needs_more_lowers_the_promise_at_once(card: tuple[str, str, float], tmp_path: Path) -> None:
    worse = of_card(measured(Frugal(-900 * MIB)), card, tmp_path)
    assert raised(tables(worse), TABLE)
    assert raised(TABLE, tables(worse)) == []


@pytest.mark.parametrize(
    ("name", "share", "rule"),
    [
        ("peak_allocated_bytes", 0.98, "V201"),
        ("peak_allocated_bytes", 0.995, ""),
        ("peak_allocated_bytes", 1.04, ""),
        ("peak_allocated_bytes", 1.06, "V201"),
        ("resident_bytes", 0.99, "V202"),
        ("resident_bytes", 1.01, "V202"),
    ],
)
def test_bytes_lie_within_one_percent_below_and_five_above(name: str, share: float, rule: str, tmp_path: Path) -> None:
    document: Document = json.loads(pretty_json(HONEST))
    on_card(*CARDS[0])(document)
    number = next(n for n, probe in enumerate(document["probes"]) if probe["verdict"] == "fits")
    place = next(n for n, stage in enumerate(document["probes"][number]["stages"]) if stage["name"] == "denoise")
    stage = document["probes"][number]["stages"][place]
    stage[name] = int(stage[name] * share)
    record = msgspec.convert(document, Measurement)
    found = list(physics(record, AnalyticProber(), lambda _: None, exact=False))
    assert [broken.rule.id for broken in found] == ([rule] if rule else [])
    for broken in found:
        assert broken.field == f"probes[{number}].stages[{place}].{name}"
        assert "denoise" in broken.problem
        assert broken.problem.count("MiB") == 2


@pytest.mark.parametrize(("share", "rules"), [(1.0, []), (1.049, []), (1.052, ["V203"]), (1.2, ["V203"])])
def test_a_run_that_fits_needs_at_most_five_percent_more_than_its_cap(share: float, rules: list[str]) -> None:
    document: Document = json.loads(pretty_json(HONEST))
    on_card(*CARDS[0])(document)
    probe = next(probe for probe in document["probes"] if probe["verdict"] == "fits")
    whole = msgspec.convert(probe, RecordedProbe)
    probe["cap_bytes"] = int(AnalyticProber().need(whole.knobs, whole.workload) / share)
    document |= {"probes": [probe], "certificates": []}
    found = physics(msgspec.convert(document, Measurement), AnalyticProber(), lambda _: None, exact=False)
    assert [broken.rule.id for broken in found] == rules


@pytest.mark.parametrize(
    ("stage", "where", "rules"),
    [("think", 0, []), ("think", -1, ["V201"]), ("decode", 0, []), ("decode", -1, ["V201"]), ("denoise", 0, ["V201"])],
)
def test_a_stage_that_adapts_to_free_memory_allocates_at_least_its_weights(
    stage: str, where: int, rules: list[str]
) -> None:
    document: Document = json.loads(pretty_json(HONEST))
    on_card(*CARDS[0])(document)
    fits = (probe for probe in document["probes"] if probe["verdict"] == "fits")
    probe = next(probe for probe in fits if stage in [told["name"] for told in probe["stages"]])
    told = next(told for told in probe["stages"] if told["name"] == stage)
    told["peak_allocated_bytes"] = told["resident_bytes"] + where
    document |= {"probes": [probe], "certificates": []}
    found = physics(msgspec.convert(document, Measurement), AnalyticProber(), lambda _: None, exact=False)
    assert [broken.rule.id for broken in found] == rules
