"""What a large fleet would take follows from what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.fleet_scaling import fleet_seconds

whole = st.integers(1, 40)


@given(seconds=st.integers(60, 36_000), workers=st.integers(2, 8), kinds=whole, times=whole)
def test_a_larger_fleet_works_as_well_as_the_largest_that_was_measured(
    seconds: int, workers: int, kinds: int, times: int
) -> None:
    measured = {1: float(seconds), workers: 1.25 * seconds / workers}
    assert fleet_seconds(measured, kinds, workers) == pytest.approx(kinds * measured[workers])
    assert fleet_seconds(measured, kinds, times * workers) == pytest.approx(kinds * measured[workers] / times)
