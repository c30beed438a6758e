"""What more workers gain, and what a large fleet would take, follow from what was measured."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.knobs import Variant
from tools.fleet_runs import FleetRun
from tools.fleet_scaling import busy_share, campaign_cost, fleet_seconds, grown, reckoned_gain

seconds = st.floats(1, 10_000)
whole = st.integers(1, 40)


def run(workers: int, worker_cpu_s: float, driver_cpu_s: float = 0.0) -> FleetRun:
    """A run whose workers are always at work."""
    return FleetRun(
        workers=workers,
        wall_s=worker_cpu_s / workers,
        workers_cpu_s=(worker_cpu_s / workers,) * workers,
        starts_cpu_s=0.0,
        driver_cpu_s=driver_cpu_s,
        answers=1,
        message_bytes=1,
    )


@given(cpu_s=seconds, fleet=whole, times=whole)
def test_a_fleet_of_workers_that_are_always_at_work_is_as_fast_as_it_is_large(
    cpu_s: float, fleet: int, times: int
) -> None:
    busy = busy_share(run(2, cpu_s))
    assert busy == pytest.approx(1)
    assert fleet_seconds(cpu_s, fleet * times, busy) == pytest.approx(fleet_seconds(cpu_s, fleet, busy) / times)
    idle = busy_share(msgspec.structs.replace(run(2, cpu_s), wall_s=cpu_s))
    assert fleet_seconds(cpu_s, fleet, idle) == pytest.approx(2 * fleet_seconds(cpu_s, fleet, busy))


@given(cpu_s=seconds, driver_cpu_s=seconds, started_cpu_s=seconds, workers=st.integers(2, 40))
def test_what_drivers_and_starts_take_is_lost_to_the_gain(
    cpu_s: float, driver_cpu_s: float, started_cpu_s: float, workers: int
) -> None:
    assert reckoned_gain(run(1, cpu_s), run(workers, cpu_s)) == pytest.approx(workers)
    less = reckoned_gain(run(1, cpu_s), run(workers, cpu_s + started_cpu_s))
    assert less < workers
    assert reckoned_gain(run(1, cpu_s), run(workers, cpu_s + started_cpu_s, driver_cpu_s)) < less


@given(cpu_s=seconds, started_cpu_s=seconds, times=whole)
def test_more_work_takes_longer_and_starts_take_the_same(cpu_s: float, started_cpu_s: float, times: int) -> None:
    some = msgspec.structs.replace(run(2, cpu_s + started_cpu_s, 1.0), starts_cpu_s=started_cpu_s)
    more = grown(some, times)
    assert more.worker_cpu_s == pytest.approx(times * cpu_s + started_cpu_s)
    assert more.driver_cpu_s == pytest.approx(times)


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_SFT])
def test_a_sample_is_a_part_of_a_campaign_and_more_sizes_cost_more(variant: Variant) -> None:
    few, more = (campaign_cost(variant, sizes, whole=False) for sizes in ((8,), (8, 16)))
    for part in (0, 1):
        assert 0 < few[part] < more[part] < campaign_cost(variant, (8, 16), whole=True)[part]
