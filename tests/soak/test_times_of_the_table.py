"""The seconds of the table are those that the simulation of this code gives, for one tier of the default variant."""

import msgspec
import pytest

from acestep.knobs import Variant
from acestep.song_times import CardTimes
from acestep.tiers import load_tiers
from calibrate.campaign.probers import simulation
from calibrate.timing.tier_times import with_times

pytestmark = pytest.mark.soak


def seconds_of(card: CardTimes) -> list[float]:
    return [value for both in card.stages.values() for value in both] + [
        value for thought in card.thinking for value in thought.seconds
    ]


def test_the_times_of_a_tier_are_simulated_again_and_are_the_same() -> None:
    table = load_tiers()
    turbo = table.variants[Variant.TURBO]
    kept = {name: times for name, times in turbo.times.items() if name != "tier4"}
    before = msgspec.structs.replace(table, variants={Variant.TURBO: msgspec.structs.replace(turbo, times=kept)})
    again = with_times(before, before, simulation()).variants[Variant.TURBO].times["tier4"]
    for then, now in zip(turbo.times["tier4"].cards, again.cards, strict=True):
        # The gate lets a stage do 2 % more work before the record, and so the table, is made again.
        assert seconds_of(now) == pytest.approx(seconds_of(then), rel=0.05, abs=0.002), then.card
