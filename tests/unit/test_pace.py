"""A line of progress says how many answers there are and how long the rest takes, and costs little to say."""

import re

from hypothesis import given
from hypothesis import strategies as st

from calibrate.campaign.pace import PATIENCE_S, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 50), st.floats(0.01, 100))
def test_at_an_even_pace_the_time_left_is_the_time_it_takes(total: int, each_s: float) -> None:
    clock, done = Clock(), 0
    pace = Pace(lambda: total - done, clock)
    for done in range(1, total + 1):
        clock.now += each_s
        head = pace.step()
        assert head.startswith(f"[{done} of about {total}")
        left = (total - done) * each_s
        told = re.search(r", (\d+) (s|min) left", head)
        if abs(left - 1) > 1e-6:
            assert (told is not None) == (left > 1)
        if told is not None:
            unit = {"s": 1, "min": 60}[told[2]]
            assert abs(int(told[1]) * unit - left) <= unit / 2 + 1e-6


def test_the_rest_is_estimated_only_now_and_then() -> None:
    clock, reckoned = Clock(), []

    def remaining() -> int:
        reckoned.append(clock.now)
        return 1000

    pace = Pace(remaining, clock)
    for _ in range(100):
        clock.now += PATIENCE_S / 10
        pace.step()
    assert len(reckoned) <= 11
