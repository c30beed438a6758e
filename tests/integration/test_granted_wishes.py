"""Wishes that the table has no row for run where they are granted: the simulated card does not run out of memory."""

from typing import Any

import pytest

from acestep.hardware.card import simulated_card
from acestep.knobs import Backend, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, resolve
from acestep.request import Request
from acestep.tiers import load_tiers
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.table.knobs import eager, without_lm
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.some import first_of


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


@pytest.mark.parametrize(
    ("size", "wish", "seconds"),
    first_of(
        [
            (16, {"lm": "4B", "backend": Backend.PT}, 60),
            (8, {"lm": "1.7B"}, 60),
            (6, {"lm": None, "offload": Offload.CPU}, 30),
            (8, {"lm": None, "offload": Offload.NONE}, 30),
            (16, {"lm": None, "variant": Variant.XL_TURBO, "quantization": None, "offload": Offload.CPU}, 60),
            (4, {"lm": None, "quantization": Quantization.INT8, "offload": Offload.CPU}, 120),
        ],
        3,
    ),
)
def test_a_granted_wish_fits_the_budget_of_its_card(
    prober: SimulatedProber, size: int, wish: dict[str, Any], seconds: int
) -> None:
    request = Request(caption="x", lyrics="la " * 800, duration_s=seconds, think=wish["lm"] is not None)
    plan = resolve(simulated_card(size), load_tiers(), Overrides(**wish), request)
    granted = {name: getattr(plan, name) for name in wish if name != "backend"}
    assert granted == {name: value for name, value in wish.items() if name != "backend"}, plan.warnings
    knobs = eager(plan.knobs)
    workload = Workload(batch=1, duration_s=float(seconds), with_lm=request.think)
    result = prober.probe(knobs if request.think else without_lm(knobs), workload, budget_bytes(size, load_policy()))
    assert result.verdict is Verdict.FITS
