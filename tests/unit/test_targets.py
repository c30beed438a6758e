"""The published table binds turbo: every cell that promises less is named, unless a waiver says why."""

import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import InvalidInputError
from acestep.knobs import Backend, Offload, Quantization, Variant
from acestep.tiers import Frontier, LmStates, Shortfall, Tier
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from calibrate.table.targets import published, shortfalls, unwaived
from calibrate.table.waivers import Waiver, load_waivers
from tests.fakes import measured

POLICY = load_policy()
TABLE = build_table([measured()], POLICY)
ROOMY = [
    msgspec.structs.replace(
        tier,
        lm_models=("0.6B", "1.7B", "4B"),
        lm_needs={},
        recommended_lm="4B",
        lm_quantization=None,
        lm_songs_per_pass={},
        offload=Offload.NONE,
        quantization=None,
        frontier=Frontier(**{state: dict.fromkeys("1248", 600) for state in ("with_lm", "without_lm")}),
        max_duration_s=LmStates(with_lm=600, without_lm=600),
        max_batch=LmStates(with_lm=8, without_lm=8),
    )
    for tier in TABLE.variants[Variant.TURBO].tiers
]
TODAY = datetime.date(2030, 6, 1)


def test_a_table_that_promises_everything_is_short_of_nothing() -> None:
    assert shortfalls(ROOMY, published()) == ()


LOWERED: dict[str, Any] = {
    "lm_models": {"lm_models": ("4B",)},
    "recommended_lm": {"recommended_lm": "0.6B"},
    "backend": {"backend": Backend.PT},
    "offload": {"offload": Offload.STREAM},
    "quantization": {"quantization": Quantization.FP8},
    "lm_quantization": {"lm_quantization": Quantization.INT8},
    "max_duration_s.without_lm": {
        "frontier": Frontier(with_lm=dict.fromkeys("1248", 600), without_lm=dict.fromkeys("1248", 420)),
        "max_duration_s": LmStates(with_lm=600, without_lm=420),
    },
    "max_batch.with_lm": {
        "frontier": Frontier(with_lm={"1": 600, "2": 300, "4": 60, "8": 0}, without_lm=dict.fromkeys("1248", 600)),
        "max_batch": LmStates(with_lm=1, without_lm=8),
    },
}


@pytest.mark.parametrize("field", LOWERED)
def test_every_field_that_is_lowered_is_named(field: str) -> None:
    last = msgspec.structs.replace(ROOMY[-1], **LOWERED[field])
    found = shortfalls([*ROOMY[:-1], last], published())
    assert field in {short.field for short in found}
    assert {short.tier for short in found} == {"unlimited"}


def test_a_tier_that_is_gone_is_named() -> None:
    assert [(short.tier, short.field) for short in shortfalls(ROOMY[1:], published())] == [("tier1", "id")]


def test_a_table_says_itself_where_it_falls_short() -> None:
    tiers: list[Tier] = list(TABLE.variants[Variant.TURBO].tiers)
    assert TABLE.shortfalls == shortfalls(tiers, published())


SHORT = Shortfall(tier="tier1", field="max_batch.with_lm", published="4", generated="2")
WAIVED: dict[str, Any] = {
    "variant": "turbo",
    "tier": "tier1",
    "field": "max_batch.with_lm",
    "value": 2,
    "why": "a card of this size cannot hold more",
    "until": "2030-06-01",
}


def standing(**changed: Any) -> bool:
    waiver = msgspec.convert(WAIVED | changed, Waiver)
    table = msgspec.structs.replace(TABLE, shortfalls=(SHORT,))
    return unwaived(table, (waiver,), TODAY) == ()


def test_a_waiver_covers_its_own_cell_and_value_until_its_day() -> None:
    assert standing()
    assert standing(until="floor")
    assert not standing(until="2030-05-31")
    for other in ({"value": 1}, {"tier": "tier2"}, {"field": "max_batch.without_lm"}, {"variant": "base"}):
        assert not standing(**other)


@pytest.mark.parametrize(
    "damage",
    [{"until": "some day"}, {"until": "2030-02-30"}, {"why": ""}, {"why": " " * 20}, {"extra": 1}, {"variant": "huge"}],
)
def test_a_waiver_that_is_wrong_is_refused_with_its_file(damage: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "waivers.json"
    path.write_text(json.dumps([WAIVED | damage]))
    with pytest.raises(InvalidInputError, match=r"waivers\.json"):
        load_waivers(path)


def test_no_file_is_no_waivers(tmp_path: Path) -> None:
    assert load_waivers(tmp_path / "waivers.json") == ()
