"""No record of a stranger raises a promise: what it says is possible, and the simulation or a second card agrees."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import NotMeasuredError
from acestep.tiers import EvidenceKind, TierTable
from acestep.units import MIB
from calibrate.campaign.physics import physics
from calibrate.files import pretty_json
from calibrate.record.measurement import Measurement, load_measurement
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from tests.damage import Document, sealed
from tests.damage_of_meaning import on_card
from tests.fakes import AnalyticProber, measured
from tests.lies import CARDS, HONEST, accepted, lied, raised

POLICY = load_policy()
TABLE = build_table([HONEST], POLICY)
EXAMPLES = 8
"""`make soak` tries 2,000."""


class Frugal(AnalyticProber):
    """A card that needs less than the simulation says."""

    def __init__(self, less: int) -> None:
        super().__init__()
        self.less = less

    def resting_bytes(self, *asked: Any) -> int:
        return super().resting_bytes(*asked) - self.less


def of_card(record: Measurement, card: tuple[str, str, float], folder: Path) -> Measurement:
    """A record as one of a real card."""
    document: Document = json.loads(pretty_json(record))
    on_card(*card)(document)
    path = folder / "card.json"
    path.write_bytes(sealed(document))
    return load_measurement(path)


def tables(record: Measurement) -> TierTable:
    return build_table([HONEST, record], POLICY)


def raised_by(record: Measurement | None) -> list[str]:
    """What a lie raises; nothing for one that was refused, or that the table does not take."""
    if record is None:
        return []
    try:
        return raised(TABLE, tables(record))
    except NotMeasuredError:
        return []


def test_an_honest_record_of_a_real_card_decides(tmp_path: Path) -> None:
    document: Document = json.loads(pretty_json(HONEST))
    on_card(*CARDS[0])(document)
    record = accepted(document, tmp_path)
    assert record is not None
    kinds = {tier.evidence["frontier"].kind for tier in tables(record).variants["turbo"].tiers}  # type: ignore[index]
    assert kinds == {EvidenceKind.MEASURED}


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_no_lie_raises_a_promise(seed: int, tmp_path: Path) -> None:
    assert raised_by(accepted(lied(seed), tmp_path)) == []


def test_one_card_that_needs_less_raises_nothing_and_two_do(tmp_path: Path) -> None:
    better = measured(Frugal(900 * MIB))
    one, other = (of_card(better, card, tmp_path) for card in CARDS[:2])
    assert raised(TABLE, tables(one)) == []
    again = msgspec.structs.replace(one, code_version="0.0.1+tree.0123456789abcdef").sealed()
    assert raised(TABLE, build_table([HONEST, one, again], POLICY)) == []
    unknown = of_card(better, CARDS[2], tmp_path)
    assert raised(TABLE, build_table([HONEST, one, unknown], POLICY)) == []
    assert raised(TABLE, build_table([HONEST, one, other], POLICY))


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
    found = list(physics(record, AnalyticProber(), lambda _: None))
    assert [broken.rule.id for broken in found] == ([rule] if rule else [])
    for broken in found:
        assert broken.field == f"probes[{number}].stages[{place}].{name}"
        assert "denoise" in broken.problem
        assert broken.problem.count("MiB") == 2
